// Tensors on their way between TensorFlow's C++ and C.
#ifndef SESSION_GROUP_TENSORS_H_
#define SESSION_GROUP_TENSORS_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tensorflow/c/c_api.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Gives fetched tensors to the caller: all of them or, on failure, none.
absl::Status HandOver(absl::Span<const tensorflow::Tensor> fetched, TF_Tensor** outputs);

}  // namespace session_group

#endif  // SESSION_GROUP_TENSORS_H_
