// Keeps large constants out of GraphDefs.
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

// The name of the operation that replaces a constant whose value is not in the graph. Like a
// constant, it has no input and no state. The first call registers it with TensorFlow.
const std::string& HiddenConstantName();

// The value of a node of this operation, by its attributes.
absl::Status FindHiddenConstant(const tensorflow::AttrSlice& attrs, tensorflow::Tensor* value);

// The large constants of a graph, including those of its functions. A constant would be in the
// GraphDef, in the copies of it in each session and each optimiser, and in each kernel; a hidden
// constant is stored once. Nodes keep their names. Functions that XLA compiles are left alone,
// because XLA does not know the operation.
class HiddenConstants {
 public:
  HiddenConstants() = default;
  // After this, the nodes have no value any more.
  ~HiddenConstants();
  HiddenConstants(const HiddenConstants&) = delete;
  void operator=(const HiddenConstants&) = delete;

  // Hides the constants of a graph. To be called once. After a failure, the graph can't be used.
  absl::Status Hide(tensorflow::GraphDef* graph, ConstantStore* store);

  // Whether optimisers could use the value of a constant, so that there is something to reveal.
  bool can_reveal() const { return can_reveal_; }
  // Puts the values that optimisers could use back into the graph.
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
