// Tensors over shared memory with a reference count of their own.
#ifndef SESSION_GROUP_PRIVATE_BUFFER_H_
#define SESSION_GROUP_PRIVATE_BUFFER_H_

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// A buffer over the bytes of another buffer. It has its own reference count, so that sessions don't
// write to the same cache line.
class PrivateBuffer final : public tensorflow::TensorBuffer {
 public:
  // The same tensor over a buffer of its own.
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
  // Not the shared buffer, because kernels that slice the tensor would count references to it.
  TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(tensorflow::AllocationDescription* proto) const override {
    shared_->FillAllocationDescription(proto);
  }
  // Keeps kernels from reusing the memory for their output.
  bool OwnsMemory() const override { return false; }

 private:
  tensorflow::TensorBuffer* const shared_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_PRIVATE_BUFFER_H_
