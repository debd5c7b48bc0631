// Embedding lookups, many at a time.
#ifndef SESSION_GROUP_LOOKUPS_H_
#define SESSION_GROUP_LOOKUPS_H_

#include <vector>

#include "absl/types/span.h"
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// A set of gathers along the first axis that can be run in any order, and of concatenations along
// the last axis to which some of them lead.
//
// A recommendation model gathers one row from each of dozens of tables, and each of these rows is
// somewhere in memory: as kernels of their own, gathers wait for them one after the other, and
// concatenating copies all rows again. Here all rows are asked for before the first is copied, and
// they are copied to where they are needed.
class Lookups {
 public:
  // A gather's rows, by indices of type int32 or int64, or another tensor to concatenate.
  struct Piece {
    int params = -1;  // numbers of inputs; no params: `indices` is the tensor itself
    int indices = -1;
  };
  // What becomes one output: a gather, or the pieces of a concatenation.
  struct Output {
    bool is_concatenation;
    int axis;
    std::vector<Piece> pieces;
  };

  enum class Outcome {
    kDone,
    // An index is out of range: the kernels know what to say.
    kBadIndex,
    // Shapes are such that only the kernels can tell what to do.
    kBadShape,
    kNoMemory,
  };

  explicit Lookups(std::vector<Output> outputs) : outputs_(std::move(outputs)) {}

  // Writes `outputs`: all of them where it is done, else any.
  Outcome Run(const tensorflow::TensorValue* inputs, tensorflow::Allocator* allocator,
              tensorflow::Tensor* outputs) const;

 private:
  std::vector<Output> outputs_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_LOOKUPS_H_
