#include "variable_reads.h"

#include <utility>

#include "tensorflow/core/common_runtime/dma_helper.h"
#include "tensorflow/core/framework/resource_var.h"

namespace session_group {
namespace {

using tensorflow::Tensor;
using tensorflow::TensorBuffer;

// A reference count of its own for the bytes of another buffer.
class PrivateBuffer final : public TensorBuffer {
 public:
  explicit PrivateBuffer(TensorBuffer* shared) : TensorBuffer(shared->data()), shared_(shared) {
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
  TensorBuffer* const shared_;
};

}  // namespace

size_t VariableReads::Add(Variable variable) {
  for (size_t i = 0; i < variables_.size(); ++i) {
    if (variables_[i].container == variable.container && variables_[i].name == variable.name &&
        variables_[i].dtype == variable.dtype) {
      return i;
    }
  }
  variables_.push_back(std::move(variable));
  return variables_.size() - 1;
}

bool VariableReads::RefreshSlowly(uint64_t* as_of, std::vector<Tensor>* values) {
  std::lock_guard<std::mutex> lock(mu_);
  // What is written from here on is looked for again by the next request.
  const uint64_t now = writes_->count() + 1;
  if (as_of_ != now) {
    std::vector<Tensor> read(variables_.size());
    for (size_t i = 0; i < variables_.size(); ++i) {
      if (!Read(variables_[i], &read[i])) {
        failed_as_of_.store(now, std::memory_order_relaxed);
        return false;
      }
    }
    values_ = std::move(read);
    as_of_ = now;
  }
  // Assigned one by one: there are pointers to these tensors.
  for (size_t i = 0; i < values_.size(); ++i) (*values)[i] = values_[i];
  *as_of = now;
  return true;
}

void VariableReads::Drop() {
  std::lock_guard<std::mutex> lock(mu_);
  values_.clear();
  as_of_ = 0;
}

bool VariableReads::Read(const Variable& variable, Tensor* value) const {
  tensorflow::core::RefCountPtr<tensorflow::Var> var;
  tensorflow::Var* found = nullptr;
  const std::string& container =
      variable.container.empty() ? resources_->default_container() : variable.container;
  if (!resources_->Lookup(container, variable.name, &found).ok()) return false;
  var.reset(found);
  tensorflow::tf_shared_lock lock(*var->mu());
  Tensor* tensor = var->tensor();
  // Sparse updates write into a variable's bytes once it is in this mode.
  if (!var->is_initialized || var->copy_on_read_mode.load() || tensor->dtype() != variable.dtype) {
    return false;
  }
  TensorBuffer* shared = tensorflow::DMAHelper::buffer(tensor);
  if (shared == nullptr) {  // no elements
    *value = *tensor;
    return true;
  }
  auto* own = new PrivateBuffer(shared);
  *value = Tensor(tensor->dtype(), tensor->shape(), own);
  own->Unref();  // The tensor has its own reference.
  return true;
}

}  // namespace session_group
