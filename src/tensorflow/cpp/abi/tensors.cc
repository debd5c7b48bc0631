#include "abi/tensors.h"

#include "abi/shim.h"
#include "tensorflow/c/tf_tensor_internal.h"

namespace session_group {

absl::Status HandOver(absl::Span<const tensorflow::Tensor> fetched, TF_Tensor** outputs) {
  for (size_t i = 0; i < fetched.size(); ++i) {
    absl::Status converted;
    outputs[i] = tensorflow::TF_TensorFromTensor(fetched[i], &converted);
    if (!converted.ok()) {
      while (i > 0) {
        TF_DeleteTensor(outputs[--i]);
        outputs[i] = nullptr;
      }
      return converted;
    }
  }
  return absl::OkStatus();
}

}  // namespace session_group

int32_t sg_tensor_dtype(const TF_Tensor* tensor) { return TF_TensorType(tensor); }
