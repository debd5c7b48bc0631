#include "devices/session_device.h"

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "abi/caught.h"
#include "devices/host_allocator.h"
#include "devices/large_blocks.h"

#ifndef NDEBUG
#error "without NDEBUG, TensorFlow's classes have another layout than in the wheel: define NDEBUG"
#endif

namespace session_group {

IntraOpPool::IntraOpPool(tensorflow::Env* env, int num_threads, bool spin)
    : pool_(env, tsl::ThreadOptions(), "session_group_intra", num_threads,
            /*low_latency_hint=*/spin,
            /*allocator=*/nullptr),
      eigen_(pool_.AsEigenThreadPool(), num_threads) {
  workers_.num_threads = num_threads;
  workers_.workers = &pool_;
}

namespace {

tensorflow::DeviceAttributes Renamed(tensorflow::DeviceAttributes attributes,
                                     const std::string& name) {
  attributes.set_name(name);
  return attributes;
}

}  // namespace

SessionDevice::SessionDevice(tensorflow::Device* wrapped, const std::string& name,
                             tensorflow::ResourceMgr* resources, IntraOpPool* intra_op_pool,
                             ConstantStore* constants, Restorer* restorer,
                             const TablePlacement* tables)
    : Device(wrapped->env(), Renamed(wrapped->attributes(), name)),
      wrapped_(wrapped),
      resources_(resources),
      plain_(wrapped->device_type() == tensorflow::DEVICE_CPU ? wrapped->GetAllocator({})
                                                              : nullptr),
      constants_(constants),
      restorer_(restorer),
      tables_(tables) {
  // Kernels for accelerators also use these for their work on the host.
  set_tensorflow_cpu_worker_threads(intra_op_pool->workers());
  if (wrapped->has_eigen_cpu_device()) set_eigen_cpu_device(intra_op_pool->eigen());
}

tensorflow::Allocator* SessionDevice::GetAllocator(tensorflow::AllocatorAttributes attributes) {
  tensorflow::Allocator* theirs = wrapped_->GetAllocator(attributes);
  return theirs == plain_ ? constants_->allocator() : theirs;
}

void SessionDevice::Compute(tensorflow::OpKernel* kernel, tensorflow::OpKernelContext* context) {
  absl::Status computed = Caught([&] {
    const bool restores = Restorer::Knows(kernel->type_string_view());
    std::optional<TableNodes::Scope> spreads;
    if (restores || tables_->is_loading.load(std::memory_order_relaxed)) {
      spreads.emplace(&tables_->nodes);
    }
    if (restores && restorer_->Restore(context)) return absl::OkStatus();
    wrapped_->Compute(kernel, context);
    // TensorFlow's kernel has read large tensors on threads of its own.
    if (restores && !tables_->nodes.empty()) SpreadOutputs(context);
    return absl::OkStatus();
  });
  if (!computed.ok()) context->SetStatus(computed);
}

void SessionDevice::SpreadOutputs(tensorflow::OpKernelContext* context) const {
  for (int i = 0; i < context->num_outputs(); ++i) {
    tensorflow::Tensor* const output = context->mutable_output(i);
    if (output == nullptr || output->TotalBytes() < LargeBlocks::kLeast) continue;
    FastAllocator::Get()->Spread(output->data(), tables_->nodes);
  }
}

void SessionDevice::ComputeAsync(tensorflow::AsyncOpKernel* kernel,
                                 tensorflow::OpKernelContext* context,
                                 tensorflow::AsyncOpKernel::DoneCallback done) {
  // A kernel may call `done`, or pass it on, before it throws.
  struct Once {
    explicit Once(tensorflow::AsyncOpKernel::DoneCallback done) : done(std::move(done)) {}
    void operator()() {
      if (!is_done.exchange(true)) done();
    }
    std::atomic<bool> is_done{false};
    const tensorflow::AsyncOpKernel::DoneCallback done;
  };
  auto once = std::make_shared<Once>(std::move(done));
  absl::Status computed = Caught([&] {
    wrapped_->ComputeAsync(kernel, context, [once] { (*once)(); });
    return absl::OkStatus();
  });
  if (computed.ok() || once->is_done.load()) return;
  context->SetStatus(computed);
  (*once)();
}

absl::Status SessionDevice::MakeTensorFromProto(const tensorflow::TensorProto& proto,
                                                const tensorflow::AllocatorAttributes attributes,
                                                tensorflow::Tensor* tensor) {
  if (plain_ == nullptr) return wrapped_->MakeTensorFromProto(proto, attributes, tensor);
  return constants_->FromProto(proto, tensor);
}

}  // namespace session_group
