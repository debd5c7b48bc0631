// Converts tensors between the C++ and the C of TensorFlow.
#ifndef SESSION_GROUP_TENSORS_H_
#define SESSION_GROUP_TENSORS_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tensorflow/c/c_api.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Writes fetched tensors to `outputs`, which the caller then owns: all of them or, on failure,
// none.
absl::Status HandOver(absl::Span<const tensorflow::Tensor> fetched, TF_Tensor** outputs);

}  // namespace session_group

#endif  // SESSION_GROUP_TENSORS_H_
