#include "graph/node_index.h"

#include "absl/strings/strip.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_def.pb.h"

namespace session_group {
namespace {

// A node calls a function if its operation has the name of the function.
const tensorflow::OpDef* Operation(const tensorflow::GraphDef& graph, const std::string& name) {
  const tensorflow::OpDef* op = nullptr;
  if (tensorflow::OpRegistry::Global()->LookUpOpDef(name, &op).ok()) return op;
  for (const tensorflow::FunctionDef& function : graph.library().function()) {
    if (function.signature().name() == name) return &function.signature();
  }
  return nullptr;
}

}  // namespace

int32_t NodeIndex::Outputs(const tensorflow::GraphDef& graph, absl::string_view name) {
  std::call_once(built_, [&] {
    nodes_.reserve(graph.node_size());
    for (const tensorflow::NodeDef& node : graph.node()) nodes_.emplace(node.name(), &node);
  });
  const auto found = nodes_.find(name);
  if (found == nodes_.end()) {
    absl::string_view inner = name;
    const bool may_be_made =
        IsBelowANode(name) || (absl::ConsumePrefix(&inner, "Func/") && IsBelowANode(inner));
    return may_be_made ? kUnknown : kNone;
  }
  const tensorflow::OpDef* op = Operation(graph, found->second->op());
  int outputs = 0;
  if (op == nullptr || !tensorflow::NumOutputsForNode(*found->second, *op, &outputs).ok()) {
    return kUnknown;
  }
  return outputs;
}

bool NodeIndex::IsBelowANode(absl::string_view name) const {
  for (size_t slash = name.find('/'); slash != name.npos; slash = name.find('/', slash + 1)) {
    const absl::string_view above = name.substr(0, slash);
    if (nodes_.contains(above)) return true;
  }
  return false;
}

}  // namespace session_group
