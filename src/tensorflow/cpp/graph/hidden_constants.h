// Large constants, kept out of GraphDefs.
#ifndef SESSION_GROUP_HIDDEN_CONSTANTS_H_
#define SESSION_GROUP_HIDDEN_CONSTANTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "graph/constant_store.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// The name of the operation that stands for a constant whose value is not in the graph. It has no
// input and no state, like the constant. TensorFlow knows it from the first call on.
const std::string& HiddenConstantName();

// The value of a node of this operation.
absl::Status FindHiddenConstant(const tensorflow::AttrSlice& attrs, tensorflow::Tensor* value);

// The large constants of a graph, those of its functions included. A constant is in the GraphDef,
// in each session's copies of that, in those that optimising makes, and in each kernel; a hidden
// one is here. Nodes keep their names. Functions that a compiler makes machine code of are left
// alone: it does not know the operation.
class HiddenConstants {
 public:
  HiddenConstants() = default;
  // Its nodes have no value any more.
  ~HiddenConstants();
  HiddenConstants(const HiddenConstants&) = delete;
  void operator=(const HiddenConstants&) = delete;

  // Hides the constants of a graph, once. On failure, the graph is of no use.
  absl::Status Hide(tensorflow::GraphDef* graph, ConstantStore* store);

  // Whether optimising could make something of a value: whether there is anything to reveal.
  bool can_reveal() const { return can_reveal_; }
  // Puts these values back.
  absl::Status Reveal(tensorflow::GraphDef* graph) const;

 private:
  struct Constant {
    int64_t number;
    bool is_revealed;
  };

  class Search;

  std::vector<Constant> constants_;
  bool can_reveal_ = false;
};

}  // namespace session_group

#endif  // SESSION_GROUP_HIDDEN_CONSTANTS_H_
