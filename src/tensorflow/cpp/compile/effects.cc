#include "compile/effects.h"

#include <algorithm>
#include <unordered_set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/function.h"

namespace session_group {
namespace {

using Names = std::unordered_set<std::string>;

// Operations that use a resource and don't change it.
bool Reads(const std::string& op) {
  static const auto* const names = new Names{"ReadVariableOp",
                                             "_ReadVariablesOp",
                                             "ResourceGather",
                                             "ResourceGatherNd",
                                             "VarIsInitializedOp",
                                             "VariableShape",
                                             "Identity",
                                             "IdentityN",
                                             "LookupTableFindV2",
                                             "LookupTableSizeV2",
                                             "LookupTableExportV2",
                                             "_Arg",
                                             "_Retval",
                                             "Switch",
                                             "_SwitchN",
                                             "Merge",
                                             "Enter",
                                             "Exit",
                                             "NextIteration"};
  return names->count(op) > 0;
}

// Operations that call functions. The functions are visited by themselves.
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

// Operations on resources that end with the request.
bool IsOfOneStep(const std::string& op) {
  return absl::StartsWith(op, "TensorArray") || absl::StartsWith(op, "Stack");
}

// Operations that are stateful by definition, so that TensorFlow neither folds nor merges them, but
// whose kernels keep no state.
bool HasStatelessKernel(const std::string& op) {
  static const auto* const names = new Names{"VarHandleOp",
                                             "_VarHandlesOp",
                                             "Assert",
                                             "AssignVariableOp",
                                             "AssignAddVariableOp",
                                             "AssignSubVariableOp",
                                             "ResourceScatterAdd",
                                             "ResourceScatterUpdate",
                                             "InitializeTableV2",
                                             "LookupTableImportV2",
                                             "LookupTableInsertV2",
                                             "LookupTableRemoveV2",
                                             "Print",
                                             "PrintV2",
                                             "CheckNumerics",
                                             "CheckNumericsV2",
                                             "DeepCopy",
                                             "Empty",
                                             "_ParallelConcatStart",
                                             "_ParallelConcatUpdate"};
  return names->count(op) > 0;
}

// Whether it draws random numbers that nobody can foresee, so that it does not matter who else
// draws from the same kernel.
bool DrawsWithoutSeed(const tensorflow::NodeDef& node, const tensorflow::OpDef& op) {
  const auto is_value = [](const tensorflow::OpDef::ArgDef& arg) {
    return !arg.is_ref() && arg.type() != tensorflow::DT_RESOURCE &&
           arg.type() != tensorflow::DT_VARIANT;
  };
  if (!std::all_of(op.input_arg().begin(), op.input_arg().end(), is_value) ||
      !std::all_of(op.output_arg().begin(), op.output_arg().end(), is_value)) {
    return false;
  }
  const auto has_no = [&](const char* attr) {
    const auto found = node.attr().find(attr);
    return found != node.attr().end() && found->second.i() == 0;
  };
  // FractionalMaxPool keeps what it has drawn.
  const auto keeps = node.attr().find("deterministic");
  return has_no("seed") && has_no("seed2") && (keeps == node.attr().end() || !keeps->second.b());
}

void Add(const tensorflow::NodeDef& node, const tensorflow::OpDef& op, Effects* effects) {
  const std::string& name = node.op();
  if (Calls(name)) {
    effects->calls = true;
    return;
  }
  if (IsOfOneStep(name)) return;
  const bool reads = Reads(name);
  const auto& args = op.input_arg();
  const bool takes_resource = std::any_of(args.begin(), args.end(), [](const auto& arg) {
    return arg.type() == tensorflow::DT_RESOURCE;
  });
  const bool takes_ref =
      std::any_of(args.begin(), args.end(), [](const auto& arg) { return arg.is_ref(); });
  if ((takes_resource && !reads) || takes_ref) effects->writes = true;
  if (!op.is_stateful() || reads || HasStatelessKernel(name) || DrawsWithoutSeed(node, op)) {
    return;
  }
  if (IsNamedTable(name)) {
    const auto shared_name = node.attr().find("shared_name");
    // With a name, all sessions share the table; without, it belongs to the kernel.
    if (shared_name != node.attr().end() && !shared_name->second.s().empty()) return;
  }
  effects->state = absl::StrCat(name, ", node ", node.name());
}

// Finds the effects of the functions that a graph calls.
class Library {
 public:
  Library(const tensorflow::FunctionLibraryDefinition& functions, Effects* effects)
      : functions_(functions), effects_(effects) {}

  // Visits the functions that a node or its attributes name.
  void VisitCalled(const tensorflow::NodeDef& node) {
    Visit(node.op());
    for (const auto& attr : node.attr()) {
      if (attr.second.has_func()) Visit(attr.second.func().name());
      for (const auto& function : attr.second.list().func()) Visit(function.name());
    }
  }

  // Adds the effects of the node itself.
  void VisitItself(const tensorflow::NodeDef& node, Effects* effects) {
    const tensorflow::OpDef* op = nullptr;
    if (functions_.Find(node.op()) != nullptr) {
      effects->calls = true;
    } else if (functions_.LookUpOpDef(node.op(), &op).ok()) {
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

}  // namespace

void Effects::Add(const Effects& other) {
  writes |= other.writes;
  calls |= other.calls;
  if (state.empty()) state = other.state;
}

bool IsNamedTable(const std::string& op) {
  static const auto* const names =
      new Names{"HashTableV2", "MutableHashTableV2", "MutableHashTableOfTensorsV2",
                "MutableDenseHashTableV2"};
  return names->count(op) > 0;
}

GraphEffects EffectsOf(const tensorflow::Graph& graph) {
  GraphEffects effects;
  Library library(graph.flib_def(), &effects.functions);
  for (const tensorflow::Node* node : graph.op_nodes()) {
    library.VisitCalled(node->def());
    library.VisitItself(node->def(), &effects.nodes);
  }
  return effects;
}

}  // namespace session_group
