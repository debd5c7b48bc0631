#include "program.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/common_runtime/graph_constructor.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op.h"

namespace session_group {
namespace {

using tensorflow::Graph;
using tensorflow::Node;

using Names = std::unordered_set<std::string>;

// Operations that use a resource and leave it as it is.
bool Reads(const std::string& op) {
  static const auto* const names =
      new Names{"ReadVariableOp",     "_ReadVariablesOp",  "ResourceGather", "ResourceGatherNd",
                "VarIsInitializedOp", "VariableShape",     "Identity",       "IdentityN",
                "LookupTableFindV2",  "LookupTableSizeV2", "_Arg",           "_Retval"};
  return names->count(op) > 0;
}

// Operations that call functions, which are looked at by themselves.
bool Calls(const std::string& op) {
  static const auto* const names = new Names{"StatefulPartitionedCall",
                                             "PartitionedCall",
                                             "If",
                                             "StatelessIf",
                                             "While",
                                             "StatelessWhile",
                                             "Case",
                                             "StatelessCase"};
  return names->count(op) > 0;
}

// Operations that make a handle to something in the resource manager.
bool MakesTable(const std::string& op) { return op == "HashTableV2" || op == "MutableHashTableV2"; }

// What running a node, or a function, does beside computing its outputs.
struct Effects {
  // Changes a variable, a table or the like.
  bool writes = false;
  // Shows that it was run: it can't be run again instead of being continued.
  bool side_effects = false;
  // The operation with state in its kernel, if there is one: a second kernel for the same node
  // would have a state of its own.
  std::string state;

  void Add(const Effects& other) {
    writes |= other.writes;
    side_effects |= other.side_effects;
    if (state.empty()) state = other.state;
  }
};

void Add(const tensorflow::NodeDef& node, const tensorflow::OpDef& op, Effects* effects) {
  const std::string& name = node.op();
  if (Calls(name)) return;
  const bool reads = Reads(name);
  const auto& args = op.input_arg();
  const bool takes_resource = std::any_of(args.begin(), args.end(), [](const auto& arg) {
    return arg.type() == tensorflow::DT_RESOURCE;
  });
  const bool takes_ref =
      std::any_of(args.begin(), args.end(), [](const auto& arg) { return arg.is_ref(); });
  if ((takes_resource && !reads) || takes_ref) effects->writes = effects->side_effects = true;
  if (!op.is_stateful() || reads) return;
  static const auto* const handles = new Names{"VarHandleOp", "_VarHandlesOp", "Assert"};
  if (handles->count(name) > 0) return;
  if (MakesTable(name)) {
    const auto shared_name = node.attr().find("shared_name");
    // Without a name, the table is the kernel's own.
    if (shared_name == node.attr().end() || shared_name->second.s().empty()) effects->state = name;
    return;
  }
  effects->side_effects = true;
  static const auto* const stateless_kernels = new Names{"AssignVariableOp",
                                                         "AssignAddVariableOp",
                                                         "AssignSubVariableOp",
                                                         "ResourceScatterAdd",
                                                         "ResourceScatterUpdate",
                                                         "InitializeTableV2",
                                                         "LookupTableImportV2",
                                                         "LookupTableInsertV2",
                                                         "LookupTableRemoveV2",
                                                         "Print",
                                                         "PrintV2"};
  if (stateless_kernels->count(name) == 0) effects->state = name;
}

// What the functions that a graph calls do.
class Library {
 public:
  Library(const tensorflow::FunctionLibraryDefinition& functions, Effects* effects)
      : functions_(functions), effects_(effects) {}

  // Looks at the functions that a node or its attributes name.
  void VisitCalled(const tensorflow::NodeDef& node) {
    Visit(node.op());
    for (const auto& attr : node.attr()) {
      if (attr.second.has_func()) Visit(attr.second.func().name());
      for (const auto& function : attr.second.list().func()) Visit(function.name());
    }
  }

  // Looks at what the node does besides.
  void VisitItself(const tensorflow::NodeDef& node, Effects* effects) {
    const tensorflow::OpDef* op = nullptr;
    if (functions_.Find(node.op()) == nullptr && functions_.LookUpOpDef(node.op(), &op).ok()) {
      Add(node, *op, effects);
    }
  }

 private:
  void Visit(const std::string& name) {
    const tensorflow::FunctionDef* function = functions_.Find(name);
    if (function == nullptr || !seen_.insert(name).second) return;
    for (const tensorflow::NodeDef& node : function->node_def()) {
      VisitCalled(node);
      VisitItself(node, effects_);
    }
  }

  const tensorflow::FunctionLibraryDefinition& functions_;
  Effects* const effects_;
  Names seen_;
};

bool AnyRef(const tensorflow::DataTypeVector& types) {
  return std::any_of(types.begin(), types.end(), [](auto t) { return tensorflow::IsRefType(t); });
}

// Why a node can't be run by one thread in an order that is fixed beforehand; empty if it can.
std::string Obstacle(const Node& node) {
  if (node.IsControlFlow()) return "control flow by Enter, Switch and the like";
  if (node.IsSend() || node.IsRecv() || node.IsHostSend() || node.IsHostRecv()) {
    return "several devices";
  }
  if (node.IsCollective()) return "a collective operation";
  if (AnyRef(node.input_types()) || AnyRef(node.output_types())) return "a ref variable";
  if (node.IsArg() && node.output_type(0) == tensorflow::DT_RESOURCE) return "a fed resource";
  return "";
}

}  // namespace

thread_local GraphCapture* GraphCapture::current_ = nullptr;

void GraphCapture::Add(const Graph& graph, const tensorflow::Device* device) {
  devices_.push_back(device);
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
  const tensorflow::DeviceMgr* devices;
  absl::Status found = compiler->LocalDeviceManager(&devices);
  if (!found.ok()) return found;
  if (capture.graphs().size() != 1) {
    result->obstacle_ = "several devices";
  } else if (capture.devices()[0] != devices->HostCPU()) {
    result->obstacle_ = absl::StrCat("the device ", capture.devices()[0]->name());
  }
  Effects effects;
  for (size_t i = 0; i < capture.graphs().size(); ++i) {
    const auto& graph = capture.graphs()[i];
    const bool on_cpu = capture.devices()[i] == devices->HostCPU();
    Effects here, called;
    Library library(graph->flib_def(), &called);
    for (const Node* node : graph->op_nodes()) {
      library.VisitCalled(node->def());
      library.VisitItself(node->def(), &here);
      if (result->obstacle_.empty()) {
        const std::string obstacle = Obstacle(*node);
        if (!obstacle.empty()) result->obstacle_ = absl::StrCat(obstacle, " (", node->name(), ")");
      }
    }
    // What a function calls may be placed on any device.
    result->writes_elsewhere_ |= called.writes || (here.writes && !on_cpu);
    effects.Add(here);
    effects.Add(called);
  }
  if (result->obstacle_.empty() && !effects.state.empty()) {
    result->obstacle_ = absl::StrCat("state in a kernel (", effects.state, ")");
  }
  result->writes_ = effects.writes;
  // Parts of the graph may not have been seen.
  if (!made.ok()) result->writes_elsewhere_ = true;
  result->has_side_effects_ = effects.side_effects;
  if (!made.ok() && result->obstacle_.empty()) return made;
  if (result->obstacle_.empty()) result->graph_ = std::move(capture.graphs()[0]);
  *program = std::move(result);
  return absl::OkStatus();
}

}  // namespace session_group
