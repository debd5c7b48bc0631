// Tensors over memory that others own, too, whose references are counted by one session alone.
#ifndef SESSION_GROUP_PRIVATE_BUFFER_H_
#define SESSION_GROUP_PRIVATE_BUFFER_H_

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// A reference count of its own for the bytes of another buffer.
class PrivateBuffer final : public tensorflow::TensorBuffer {
 public:
  // The same tensor, over such a buffer.
  static tensorflow::Tensor View(tensorflow::Tensor tensor) {
    tensorflow::TensorBuffer* shared = tensorflow::DMAHelper::buffer(&tensor);
    if (shared == nullptr) return tensor;  // no elements
    auto* own = new PrivateBuffer(shared);
    tensorflow::Tensor view(tensor.dtype(), tensor.shape(), own);
    own->Unref();  // The tensor has its own reference.
    return view;
  }

  explicit PrivateBuffer(tensorflow::TensorBuffer* shared)
      : TensorBuffer(shared->data()), shared_(shared) {
    shared_->Ref();
  }
  ~PrivateBuffer() override { shared_->Unref(); }

  size_t size() const override { return shared_->size(); }
  // Not the shared one: kernels that slice the tensor would count references to that.
  TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(tensorflow::AllocationDescription* proto) const override {
    shared_->FillAllocationDescription(proto);
  }
  // So that no kernel takes the memory for its output.
  bool OwnsMemory() const override { return false; }

 private:
  tensorflow::TensorBuffer* const shared_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_PRIVATE_BUFFER_H_
