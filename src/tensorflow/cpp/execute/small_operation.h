// Operations on shapes and other small tensors, without their kernels.
#ifndef SESSION_GROUP_SMALL_OPERATION_H_
#define SESSION_GROUP_SMALL_OPERATION_H_

#include <memory>

#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

// What takes a kernel a multiple of the time that the work itself takes: the shape of a tensor, an
// element of it, a shape of three numbers, another shape for the same memory. Graphs of TensorFlow
// 1 and those with feature columns have more of these than of anything else.
class SmallOperation {
 public:
  virtual ~SmallOperation() = default;

  // Does what the kernel of a node does. NULL if that is not one of these operations.
  static std::unique_ptr<SmallOperation> Make(const tensorflow::Node& node);

  // Sets the only output. False if the kernel has to: for other shapes and types, or because it has
  // to report an error.
  virtual bool Run(const tensorflow::TensorValue* inputs, int num_inputs,
                   tensorflow::Allocator* allocator, tensorflow::Tensor* output) const = 0;
};

}  // namespace session_group

#endif  // SESSION_GROUP_SMALL_OPERATION_H_
