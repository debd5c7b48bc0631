#include "execute/node_values.h"

#include "graph/private_buffer.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;
using tensorflow::Tensor;

NodeValues::Value NodeValues::Input(const Node& node, int input) const {
  const auto value = values_.find(Source(node, input));
  return value == values_.end() ? Value() : value->second;
}

std::pair<int, int> NodeValues::Source(const Node& node, int input) const {
  const Edge* edge;
  if (input >= node.num_inputs() || !node.input_edge(input, &edge).ok()) return {-1, 0};
  const Node& from = *edge->src();
  if (from.IsIdentity() || from.IsSwitch() || from.IsLoopCond() || from.IsEnter()) {
    return Source(from, 0);
  }
  if (from.IsExit() || from.IsMerge()) {
    const ControlFlow::Variable* variable = VariableOf(from);
    if (variable != nullptr && variable->is_invariant && edge->src_output() == 0) {
      return Source(*variable->enter, 0);
    }
  }
  return {from.id(), edge->src_output()};
}

const ControlFlow::Variable* NodeValues::VariableOf(const Node& node) const {
  const int loop = flow_.loop(node);
  if (loop == ControlFlow::kNoLoop) return nullptr;
  for (const ControlFlow::Variable& variable : flow_.loops()[loop].variables) {
    if (variable.merge == &node) return &variable;
    for (const Node* exit : variable.exits) {
      if (exit == &node) return &variable;
    }
  }
  return nullptr;
}

NodeValues::Value NodeValues::Constant(const Tensor& tensor) {
  // Only this session counts references to the view.
  l_->constants.push_back(PrivateBuffer::View(tensor));
  l_->constant_guards.push_back(l_->constants.back());
  return {Value::kConstant, static_cast<int>(l_->constants.size()) - 1};
}

int64_t NodeValues::ConstantAxis(const Node& node, int input) const {
  constexpr int64_t kNoAxis = INT64_MIN;
  const Value value = Input(node, input);
  if (value.kind != Value::kConstant) return kNoAxis;
  const Tensor& axis = l_->constants[value.index];
  if (axis.NumElements() != 1) return kNoAxis;
  if (axis.dtype() == tensorflow::DT_INT32) return axis.flat<int32_t>()(0);
  if (axis.dtype() == tensorflow::DT_INT64) return axis.flat<int64_t>()(0);
  return kNoAxis;
}

}  // namespace session_group
