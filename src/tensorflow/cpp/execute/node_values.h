// Where the inputs of a program's nodes are during a run.
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

// What is known of each node's outputs while a layout is made.
class NodeValues {
 public:
  using Value = Layout::Value;

  NodeValues(const ControlFlow& flow, Layout* layout) : flow_(flow), l_(layout) {}

  void Set(const tensorflow::Node& node, int output, Value value) {
    values_[{node.id(), output}] = value;
  }
  // Whether the node's first output is known.
  bool Has(const tensorflow::Node& node) const { return values_.count({node.id(), 0}) > 0; }
  Value Input(const tensorflow::Node& node, int input) const;

  // The node and the output that an input comes from, past all that only passes it on.
  std::pair<int, int> Source(const tensorflow::Node& node, int input) const;
  // That a loop's Merge or Exit is of; NULL for none.
  const ControlFlow::Variable* VariableOf(const tensorflow::Node& node) const;

  Value Constant(const tensorflow::Tensor& tensor);
  // A constant axis; a number that is none where it is not constant.
  int64_t ConstantAxis(const tensorflow::Node& node, int input) const;

 private:
  const ControlFlow& flow_;
  Layout* const l_;
  std::map<std::pair<int, int>, Value> values_;  // by node and output
};

}  // namespace session_group

#endif  // SESSION_GROUP_NODE_VALUES_H_
