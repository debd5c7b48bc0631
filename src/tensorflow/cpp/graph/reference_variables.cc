#include "graph/reference_variables.h"

#include <iterator>
#include <string>
#include <unordered_set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "graph/references.h"
#include "tensorflow/core/graph/tensor_id.h"

namespace session_group {
namespace {

using tensorflow::GraphDef;
using tensorflow::NodeDef;
using tensorflow::TensorId;
using Use = ReferenceVariable::Use;

class Conversion {
 public:
  explicit Conversion(GraphDef* graph) : graph_(*graph) {}

  // A read that may come after a write of the same request has to see it: it reads by itself, once
  // all is there that its node waits for. A Merge waits for the first of its values alone.
  void SeparateRead(const ReferenceVariable& variable, const Use& read) {
    NodeDef* const node = graph_.mutable_node(read.node);
    NodeDef* const value = Add(absl::StrCat(node->name(), "/session_group_read_", read.input),
                               "ReadVariableOp", DeviceOf(variable, *node));
    MakeRead(read.handle, variable.dtype, value);
    const bool waits = node->op() != "Merge";
    std::unordered_set<std::string> producers;
    for (const std::string& input : node->input()) {
      const TensorId id = tensorflow::ParseTensorName(input);
      const std::string producer(id.node());
      const bool is_control = id.index() < 0;
      if (producer == variable.name && !is_control) continue;
      if ((is_control || waits) && producers.insert(producer).second) {
        value->add_input(absl::StrCat("^", producer));
      }
    }
    node->set_input(read.input, value->name());
  }

  // The variable's node reads, once in a request.
  void ConvertVariable(const ReferenceVariable& variable) {
    NodeDef* const node = graph_.mutable_node(variable.node);
    const std::string handle = absl::StrCat(variable.name, kHandle);
    NodeDef* const made = Add(handle, "VarHandleOp", *node);
    auto& attrs = *made->mutable_attr();
    attrs["dtype"].set_type(variable.dtype);
    *attrs["shape"].mutable_shape() = variable.shape;
    const auto [container, shared_name] = ResourceOf(*node);
    attrs["container"].set_s(container);
    attrs["shared_name"].set_s(shared_name);
    const std::vector<std::string> controls(node->input().begin(), node->input().end());
    MakeRead(handle, variable.dtype, node);
    for (const std::string& control : controls) node->add_input(control);
  }

  // A write is done by a node of its own; the operation's node then reads.
  void ConvertOperation(const ReferenceVariable& variable, const Use& use) {
    NodeDef* const node = graph_.mutable_node(use.node);
    const std::string op = node->op();
    const bool follows_write = use.source != variable.name && !use.is_switched;
    const std::string after = follows_write ? absl::StrCat("^", use.source) : "";
    if (!WritesReference(op)) {
      node->set_op(OnResource(op));
      node->set_input(0, use.handle);
      if (!after.empty()) node->add_input(after);
      if (op == "RefSwitch") (*node->mutable_attr())["T"].set_type(tensorflow::DT_RESOURCE);
      if (op == "IsVariableInitialized") node->mutable_attr()->erase("dtype");
      return;
    }
    NodeDef* const write =
        Add(absl::StrCat(node->name(), kWrite), OnResource(op), DeviceOf(variable, *node));
    write->add_input(use.handle);
    for (int input = 1; input < node->input_size(); ++input) write->add_input(node->input(input));
    if (!after.empty()) write->add_input(after);
    auto& attrs = *write->mutable_attr();
    const bool is_nd = absl::StartsWith(write->op(), "ResourceScatterNd");
    attrs[is_nd ? "T" : "dtype"].set_type(variable.dtype);
    if (const auto indices = node->attr().find("Tindices"); indices != node->attr().end()) {
      attrs["Tindices"] = indices->second;
    }
    if (op == "Assign") CheckShape(*node, variable, write);
    MakeRead(use.handle, variable.dtype, node);
    node->add_input(absl::StrCat("^", write->name()));
  }

 private:
  // A resource is read and written where it is.
  const NodeDef& DeviceOf(const ReferenceVariable& variable, const NodeDef& user) const {
    return variable.node < 0 ? user : graph_.node(variable.node);
  }

  NodeDef* Add(const std::string& name, const char* op, const NodeDef& beside) {
    // Adding moves no node: they are kept by pointers.
    NodeDef* node = graph_.add_node();
    node->set_name(name);
    node->set_op(op);
    node->set_device(beside.device());
    return node;
  }

  static void MakeRead(const std::string& handle, tensorflow::DataType dtype, NodeDef* node) {
    node->set_op("ReadVariableOp");
    node->clear_input();
    node->add_input(handle);
    auto& attrs = *node->mutable_attr();
    for (auto attr = attrs.begin(); attr != attrs.end();) {
      // Those that any operation may have stay.
      attr = attr->first.empty() || attr->first[0] != '_' ? attrs.erase(attr) : std::next(attr);
    }
    attrs["dtype"].set_type(dtype);
  }

  // An assignment checks the shape that the variable was declared with.
  void CheckShape(const NodeDef& assign, const ReferenceVariable& variable, NodeDef* write) {
    const bool is_checked = ValidatesShape(assign);
    (*write->mutable_attr())["validate_shape"].set_b(is_checked);
    if (!is_checked || variable.shape.unknown_rank()) return;
    NodeDef* const value =
        Add(absl::StrCat(assign.name(), "/session_group_value"), "EnsureShape", *write);
    value->add_input(write->input(1));
    (*value->mutable_attr())["T"].set_type(variable.dtype);
    *(*value->mutable_attr())["shape"].mutable_shape() = variable.shape;
    write->set_input(1, value->name());
  }

  GraphDef& graph_;
};

}  // namespace

absl::Status ConvertReferenceVariables(const std::vector<const GraphDef*>& earlier,
                                       GraphDef* graph) {
  const References references(earlier, *graph);
  std::vector<const ReferenceVariable*> variables;
  for (const auto& [name, variable] : references.variables()) {
    if (variable.obstacle.empty()) {
      variables.push_back(&variable);
    } else if (variable.node < 0) {
      return absl::UnimplementedError(absl::StrCat(
          "variable ", name, " is kept as a resource variable, but ", variable.obstacle,
          ": add that to the graph that has the variable, or switch off the optimisation "
          "resource_variables"));
    }
  }
  // What follows what is only known of the graph as it came.
  std::vector<std::pair<const ReferenceVariable*, const Use*>> separate;
  for (const ReferenceVariable* variable : variables) {
    for (const Use& read : variable->reads) {
      if (read.is_switched || references.MayFollowWrite(*variable, read)) {
        separate.emplace_back(variable, &read);
      }
    }
  }
  Conversion conversion(graph);
  for (const auto& [variable, read] : separate) conversion.SeparateRead(*variable, *read);
  for (const ReferenceVariable* variable : variables) {
    if (variable->node >= 0) conversion.ConvertVariable(*variable);
  }
  for (const ReferenceVariable* variable : variables) {
    for (const Use& use : variable->operations) conversion.ConvertOperation(*variable, use);
  }
  return absl::OkStatus();
}

}  // namespace session_group
