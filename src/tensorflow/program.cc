#include "program.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op.h"

namespace session_group {
namespace {

using tensorflow::Graph;
using tensorflow::Node;

using Names = std::unordered_set<std::string>;

// Operations that use a resource and leave it as it is.
const Names& Readers() {
  static const auto* const names =
      new Names{"ReadVariableOp",     "_ReadVariablesOp",  "ResourceGather", "ResourceGatherNd",
                "VarIsInitializedOp", "VariableShape",     "Identity",       "IdentityN",
                "LookupTableFindV2",  "LookupTableSizeV2", "_Arg",           "_Retval"};
  return *names;
}

// Operations that count as stateful, yet keep their state in the resource manager under a name that
// does not depend on the kernel, or have none: several kernels for one node are as good as one.
bool HasStateInKernel(const std::string& op) {
  static const auto* const harmless = new Names{"VarHandleOp",
                                                "_VarHandlesOp",
                                                "AssignVariableOp",
                                                "AssignAddVariableOp",
                                                "AssignSubVariableOp",
                                                "ResourceScatterAdd",
                                                "ResourceScatterUpdate",
                                                "HashTableV2",
                                                "MutableHashTableV2",
                                                "InitializeTableV2",
                                                "LookupTableImportV2",
                                                "LookupTableInsertV2",
                                                "LookupTableRemoveV2",
                                                "Assert",
                                                "Print",
                                                "PrintV2",
                                                "StatefulPartitionedCall",
                                                "If",
                                                "While",
                                                "Case"};
  return harmless->count(op) == 0 && Readers().count(op) == 0;
}

// What the functions that a graph calls do.
class Library {
 public:
  explicit Library(const tensorflow::FunctionLibraryDefinition& functions)
      : functions_(functions) {}

  // Looks at an operation's attributes for the functions that it calls, and at what these do.
  template <typename Attrs>
  void Visit(const std::string& op, const Attrs& attrs) {
    Visit(op);
    for (const auto& attr : attrs) {
      if (attr.second.has_func()) Visit(attr.second.func().name());
      for (const auto& function : attr.second.list().func()) Visit(function.name());
    }
  }

  bool writes = false;
  std::string stateful;

 private:
  void Visit(const std::string& name) {
    const tensorflow::FunctionDef* function = functions_.Find(name);
    if (function == nullptr || !seen_.insert(name).second) return;
    for (const tensorflow::NodeDef& node : function->node_def()) {
      Visit(node.op(), node.attr());
      const tensorflow::OpDef* op = nullptr;
      if (functions_.Find(node.op()) != nullptr || !functions_.LookUpOpDef(node.op(), &op).ok()) {
        continue;
      }
      if (op->is_stateful() && HasStateInKernel(node.op())) stateful = node.op();
      const auto& args = op->input_arg();
      const bool takes_resource = std::any_of(args.begin(), args.end(), [](const auto& arg) {
        return arg.type() == tensorflow::DT_RESOURCE;
      });
      writes |= takes_resource && Readers().count(node.op()) == 0;
    }
  }

  const tensorflow::FunctionLibraryDefinition& functions_;
  Names seen_;
};

bool AnyRef(const tensorflow::DataTypeVector& types) {
  return std::any_of(types.begin(), types.end(), [](auto t) { return tensorflow::IsRefType(t); });
}

// Why a node can't be run by one thread in an order that is fixed beforehand, or its kernel not be
// had twice; empty if it can.
std::string Obstacle(const Node& node) {
  if (node.IsControlFlow()) return "control flow by Enter, Switch and the like";
  if (node.IsSend() || node.IsRecv() || node.IsHostSend() || node.IsHostRecv()) {
    return "several devices";
  }
  if (node.IsCollective()) return "a collective operation";
  if (AnyRef(node.input_types()) || AnyRef(node.output_types())) return "a ref variable";
  if (node.IsArg() && node.output_type(0) == tensorflow::DT_RESOURCE) return "a fed resource";
  if (node.op_def().is_stateful() && HasStateInKernel(node.type_string())) {
    return "state in a kernel";
  }
  return "";
}

}  // namespace

thread_local GraphCapture* GraphCapture::current_ = nullptr;

void GraphCapture::Add(const Graph& graph) {
  // The graph's own library may be a mere view of another one, which ends with the compilation: its
  // default registry. What is kept depends on nothing but the operations that are registered.
  tensorflow::FunctionLibraryDefinition functions(tensorflow::OpRegistry::Global(),
                                                  tensorflow::FunctionDefLibrary());
  for (const tensorflow::OpRegistryInterface* registry = &graph.flib_def(); registry != nullptr;) {
    const auto* library = dynamic_cast<const tensorflow::FunctionLibraryDefinition*>(registry);
    if (library == nullptr) break;
    functions.AddLibrary(library->ToProto()).IgnoreError();
    registry = library->default_registry();
  }
  graphs_.push_back(std::make_unique<Graph>(functions.ReachableDefinitions(graph)));
  tensorflow::CopyGraph(graph, graphs_.back().get());
}

absl::Status Program::Compile(tensorflow::Session* compiler,
                              const tensorflow::CallableOptions& callable,
                              std::unique_ptr<Program>* program) {
  GraphCapture capture;
  tensorflow::Session::CallableHandle handle;
  absl::Status made = compiler->MakeCallable(callable, &handle);
  if (made.ok()) {
    made = compiler->ReleaseCallable(handle);
  }
  // A graph may be fine but for the compiler's executor.
  if (!made.ok() && capture.graphs().empty()) return made;

  std::unique_ptr<Program> result(new Program);
  result->feeds_.assign(callable.feed().begin(), callable.feed().end());
  result->num_fetches_ = callable.fetch_size();
  if (capture.graphs().size() != 1) result->obstacle_ = "several devices";
  for (const auto& graph : capture.graphs()) {
    Library library(graph->flib_def());
    for (const Node* node : graph->op_nodes()) {
      library.Visit(node->type_string(), node->def().attr());
      const bool takes_resource = std::count(node->input_types().begin(), node->input_types().end(),
                                             tensorflow::DT_RESOURCE) > 0;
      const bool calls = node->IsFunctionCall() || node->IsControlFlow() || node->IsIfNode() ||
                         node->IsWhileNode() || node->IsCaseNode();
      result->writes_ |= takes_resource && !calls && Readers().count(node->type_string()) == 0;
      result->has_side_effects_ |=
          result->writes_ || node->type_string() == "Print" || node->type_string() == "PrintV2";
      if (result->obstacle_.empty()) {
        const std::string obstacle = Obstacle(*node);
        if (!obstacle.empty()) result->obstacle_ = absl::StrCat(obstacle, " (", node->name(), ")");
      }
    }
    result->writes_ |= library.writes;
    if (result->obstacle_.empty() && !library.stateful.empty()) {
      result->obstacle_ = absl::StrCat("state in a function's kernel (", library.stateful, ")");
    }
  }
  if (!made.ok() && result->obstacle_.empty()) return made;
  if (result->obstacle_.empty()) result->graph_ = std::move(capture.graphs()[0]);
  *program = std::move(result);
  return absl::OkStatus();
}

}  // namespace session_group
