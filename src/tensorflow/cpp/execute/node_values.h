// Where the inputs of nodes come from while a layout is made.
#ifndef SESSION_GROUP_NODE_VALUES_H_
#define SESSION_GROUP_NODE_VALUES_H_

#include <cstdint>
#include <map>
#include <utility>

#include "compile/control_flow.h"
#include "execute/layout.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

// The values of node outputs. Skips nodes that only pass a value on.
class NodeValues {
 public:
  using Value = Layout::Value;

  NodeValues(const ControlFlow& flow, Layout* layout) : flow_(flow), l_(layout) {}

  void Set(const tensorflow::Node& node, int output, Value value) {
    values_[{node.id(), output}] = value;
  }
  // Whether the first output of the node has a value.
  bool Has(const tensorflow::Node& node) const { return values_.count({node.id(), 0}) > 0; }
  Value Input(const tensorflow::Node& node, int input) const;

  // The node and the output that an input comes from.
  std::pair<int, int> Source(const tensorflow::Node& node, int input) const;
  // The loop variable of a Merge or Exit; NULL if there is none.
  const ControlFlow::Variable* VariableOf(const tensorflow::Node& node) const;

  // Adds a constant to the layout.
  Value Constant(const tensorflow::Tensor& tensor);
  // The value of a constant axis; INT64_MIN if it is not constant.
  int64_t ConstantAxis(const tensorflow::Node& node, int input) const;

 private:
  const ControlFlow& flow_;
  Layout* const l_;
  std::map<std::pair<int, int>, Value> values_;  // by node and output
};

}  // namespace session_group

#endif  // SESSION_GROUP_NODE_VALUES_H_
