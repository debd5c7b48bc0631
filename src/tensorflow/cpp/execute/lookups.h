// Does many embedding lookups at once.
#ifndef SESSION_GROUP_LOOKUPS_H_
#define SESSION_GROUP_LOOKUPS_H_

#include <vector>

#include "absl/types/span.h"
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// A set of independent gathers along the first axis, some of which are concatenated along the last
// axis.
//
// A recommendation model gathers one row from each of dozens of tables, and the rows lie all over
// memory. As separate kernels, the gathers wait for their rows one after the other, and the
// concatenation copies all rows again. Lookups prefetch all rows before they copy the first one,
// and copy them to where they are needed.
class Lookups {
 public:
  // A gather with indices of type int32 or int64, or another tensor to concatenate.
  struct Piece {
    int params = -1;  // an index of the inputs; -1: `indices` is the tensor itself
    int indices = -1;
  };
  // An output: a gather, or a concatenation of its pieces.
  struct Output {
    bool is_concatenation;
    int axis;
    std::vector<Piece> pieces;
  };

  enum class Outcome {
    kDone,
    // An index is out of range: a kernel must report it.
    kBadIndex,
    // Only kernels can handle these shapes.
    kBadShape,
    kNoMemory,
  };

  explicit Lookups(std::vector<Output> outputs) : outputs_(std::move(outputs)) {}

  // Writes all `outputs` if done, otherwise perhaps some of them.
  Outcome Run(const tensorflow::TensorValue* inputs, tensorflow::Allocator* allocator,
              tensorflow::Tensor* outputs) const;

 private:
  std::vector<Output> outputs_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_LOOKUPS_H_
