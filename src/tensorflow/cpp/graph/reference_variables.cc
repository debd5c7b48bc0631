#include "graph/reference_variables.h"

#include <iterator>
#include <unordered_map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "graph/references.h"
#include "tensorflow/core/graph/tensor_id.h"

namespace session_group {
namespace {

using tensorflow::GraphDef;
using tensorflow::NodeDef;

constexpr char kPrefix[] = "session_group_reference/";

class Conversion {
 public:
  explicit Conversion(GraphDef* graph) : graph_(*graph) {
    for (const NodeDef& node : graph->node()) ops_.emplace(node.name(), node.op());
  }

  void Convert(const ReferenceVariable& variable) {
    if (variable.node >= 0) ConvertNode(variable);
    for (const int place : variable.operations) ConvertOperation(variable, place);
  }

 private:
  // The variable's node reads, once in a request.
  void ConvertNode(const ReferenceVariable& variable) {
    NodeDef* const node = graph_.mutable_node(variable.node);
    const auto [container, shared_name] = ResourceOf(*node);
    NodeDef* const handle = Add(absl::StrCat(variable.name, kHandle), "VarHandleOp", *node);
    auto& attrs = *handle->mutable_attr();
    attrs["dtype"].set_type(variable.dtype);
    *attrs["shape"].mutable_shape() = variable.shape;
    attrs["container"].set_s(container);
    attrs["shared_name"].set_s(absl::StrCat(kPrefix, shared_name));
    MakeRead(variable, node);
  }

  // An assignment is done by a node of its own; the operation's node then reads.
  void ConvertOperation(const ReferenceVariable& variable, int place) {
    NodeDef* const node = graph_.mutable_node(place);
    const std::string handle = absl::StrCat(variable.name, kHandle);
    if (node->op() == "IsVariableInitialized") {
      node->set_op(OnResource(node->op()));
      node->set_input(0, handle);
      node->mutable_attr()->erase("dtype");
      return;
    }
    // Where the variable is, if it is in this graph.
    const NodeDef& beside = variable.node < 0 ? *node : graph_.node(variable.node);
    NodeDef* const write = Add(absl::StrCat(node->name(), kWrite), OnResource(node->op()), beside);
    write->add_input(handle);
    write->add_input(Checked(variable, *node, beside));
    for (int input = 2; input < node->input_size(); ++input) write->add_input(node->input(input));
    auto& attrs = *write->mutable_attr();
    attrs["dtype"].set_type(variable.dtype);
    attrs["validate_shape"].set_b(true);
    MakeRead(variable, node);
    node->add_input(absl::StrCat("^", write->name()));
  }

  // The value of an assignment if it has the shape that the variable was declared with, in memory
  // of its own: a resource variable keeps what it is given, be it a constant or what was fed.
  std::string Checked(const ReferenceVariable& variable, const NodeDef& assign,
                      const NodeDef& beside) {
    NodeDef* const value = Add(absl::StrCat(assign.name(), kValue), "EnsureShape", beside);
    value->add_input(assign.input(1));
    (*value->mutable_attr())["T"].set_type(variable.dtype);
    *(*value->mutable_attr())["shape"].mutable_shape() = variable.shape;
    const auto producer =
        ops_.find(std::string(tensorflow::ParseTensorName(assign.input(1)).node()));
    if (producer != ops_.end() && absl::StartsWith(producer->second, "Restore")) {
      return value->name();
    }
    NodeDef* const copy = Add(absl::StrCat(assign.name(), kCopy), "DeepCopy", beside);
    copy->add_input(value->name());
    (*copy->mutable_attr())["T"].set_type(variable.dtype);
    return copy->name();
  }

  NodeDef* Add(const std::string& name, const char* op, const NodeDef& beside) {
    // Adding moves no node: they are kept by pointers.
    NodeDef* node = graph_.add_node();
    node->set_name(name);
    node->set_op(op);
    node->set_device(beside.device());
    return node;
  }

  static void MakeRead(const ReferenceVariable& variable, NodeDef* node) {
    node->set_op("ReadVariableOp");
    node->clear_input();
    node->add_input(absl::StrCat(variable.name, kHandle));
    auto& attrs = *node->mutable_attr();
    for (auto attr = attrs.begin(); attr != attrs.end();) {
      // Those that any operation may have stay.
      attr = attr->first.empty() || attr->first[0] != '_' ? attrs.erase(attr) : std::next(attr);
    }
    attrs["dtype"].set_type(variable.dtype);
  }

  GraphDef& graph_;
  std::unordered_map<std::string, std::string> ops_;  // by the node's name
};

}  // namespace

absl::Status ConvertReferenceVariables(const std::vector<const GraphDef*>& earlier,
                                       GraphDef* graph) {
  const References references(earlier, *graph);
  for (const auto& [name, variable] : references.variables()) {
    if (variable.obstacle.empty() || variable.node >= 0) continue;
    return absl::UnimplementedError(
        absl::StrCat("variable ", name, " is kept as a resource variable, but ", variable.obstacle,
                     ": add that together with the variable, or switch off the optimisation "
                     "resource_variables"));
  }
  Conversion conversion(graph);
  for (const auto& [name, variable] : references.variables()) {
    if (variable.obstacle.empty()) conversion.Convert(variable);
  }
  return absl::OkStatus();
}

std::string OldName(const std::string& shared_name) {
  return std::string(absl::StripPrefix(shared_name, kPrefix));
}

}  // namespace session_group
