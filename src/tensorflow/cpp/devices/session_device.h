// A device as one session of a group sees it.
#ifndef SESSION_GROUP_SESSION_DEVICE_H_
#define SESSION_GROUP_SESSION_DEVICE_H_

#define EIGEN_USE_THREADS

#include <atomic>
#include <memory>
#include <string>

#include "devices/table_nodes.h"
#include "graph/constant_store.h"
#include "restore/restore.h"
#include "tensorflow/core/framework/device.h"
#include "unsupported/Eigen/CXX11/Tensor"

namespace session_group {

// The intra-op threads of a session, in the two forms that kernels use.
class IntraOpPool {
 public:
  IntraOpPool(tensorflow::Env* env, int num_threads, bool spin);

  tensorflow::DeviceBase::CpuWorkerThreads* workers() { return &workers_; }
  Eigen::ThreadPoolDevice* eigen() { return &eigen_; }

 private:
  tsl::thread::ThreadPool pool_;
  tensorflow::DeviceBase::CpuWorkerThreads workers_;
  Eigen::ThreadPoolDevice eigen_;
};

// Where what all sessions read is to lie.
struct TablePlacement {
  TableNodes nodes;
  // Whether kernels of the group make what all sessions will read: it is being loaded.
  std::atomic<bool> is_loading{false};
};

// Wraps a device. The wrapped device has what belongs to the hardware or what the group shares:
// allocators, streams, and the resource manager with its variables and tables. This object has what
// each session needs for itself: kernels and intra-op threads.
class SessionDevice final : public tensorflow::Device {
 public:
  // Plain host memory comes from the allocator of `constants`, which also stores the group's
  // constants. The name and the resource manager may differ from the wrapped device's. Owns
  // nothing; all arguments must outlive this device.
  SessionDevice(tensorflow::Device* wrapped, const std::string& name,
                tensorflow::ResourceMgr* resources, IntraOpPool* intra_op_pool,
                ConstantStore* constants, Restorer* restorer, const TablePlacement* tables);

  tensorflow::ResourceMgr* resource_manager() override { return resources_; }

  const tensorflow::DeviceBase* UnderlyingDevice() const override {
    return wrapped_->UnderlyingDevice();
  }
  tensorflow::DeviceBase* UnderlyingDevice() override { return wrapped_->UnderlyingDevice(); }

  const AcceleratorDeviceInfo* tensorflow_accelerator_device_info() const override {
    return wrapped_->tensorflow_accelerator_device_info();
  }
  tsl::thread::ThreadPool* tensorflow_device_thread_pool() override {
    return wrapped_->tensorflow_device_thread_pool();
  }

  // The allocator of the group for plain host memory, otherwise the wrapped device's.
  tensorflow::Allocator* GetAllocator(tensorflow::AllocatorAttributes attributes) override;
  tensorflow::Allocator* GetScopedAllocator(tensorflow::AllocatorAttributes attributes,
                                            int64_t step_id) override {
    return wrapped_->GetScopedAllocator(attributes, step_id);
  }
  tensorflow::ScopedAllocatorMgr* GetScopedAllocatorMgr() const override {
    return wrapped_->GetScopedAllocatorMgr();
  }
  uint64_t SafeAllocFrontier(uint64_t old_value) override {
    return wrapped_->SafeAllocFrontier(old_value);
  }

  tensorflow::PerOpGpuDevice* MakeGpuDevice() override { return wrapped_->MakeGpuDevice(); }
  absl::Status ReinitializeGpuDevice(tensorflow::OpKernelContext* context,
                                     tensorflow::PerOpGpuDevice* device,
                                     tensorflow::DeviceContext* device_context,
                                     tensorflow::Allocator* allocator) override {
    return wrapped_->ReinitializeGpuDevice(context, device, device_context, allocator);
  }

  // Stores each constant once for the group, in memory of GetAllocator().
  absl::Status MakeTensorFromProto(const tensorflow::TensorProto& proto,
                                   const tensorflow::AllocatorAttributes attributes,
                                   tensorflow::Tensor* tensor) override;
  void CopyTensorInSameDevice(const tensorflow::Tensor* input, tensorflow::Tensor* output,
                              const tensorflow::DeviceContext* context,
                              tensorflow::StatusCallback done) override {
    wrapped_->CopyTensorInSameDevice(input, output, context, std::move(done));
  }

  // Compute() lets the group restore checkpoints if it can, and spreads what is restored or loaded.
  // Both functions turn exceptions of kernels into errors, on any thread. TensorFlow's executors
  // are compiled without exceptions, so that an exception would leave them in an unknown state or
  // end the process.
  void Compute(tensorflow::OpKernel* kernel, tensorflow::OpKernelContext* context) override;
  void ComputeAsync(tensorflow::AsyncOpKernel* kernel, tensorflow::OpKernelContext* context,
                    tensorflow::AsyncOpKernel::DoneCallback done) override;

  absl::Status Sync() override { return wrapped_->Sync(); }
  void Sync(const DoneCallback& done) override { wrapped_->Sync(done); }
  bool AllowsSyncOnCompletion() const override { return wrapped_->AllowsSyncOnCompletion(); }
  absl::Status RefreshStatus() override { return wrapped_->RefreshStatus(); }
  absl::Status MaybeRewriteGraph(std::unique_ptr<tensorflow::Graph>* graph) override {
    return wrapped_->MaybeRewriteGraph(graph);
  }
  absl::Status TryGetDeviceContext(tensorflow::DeviceContext** context) override {
    return wrapped_->TryGetDeviceContext(context);
  }
  bool IsLocal() const override { return wrapped_->IsLocal(); }
  bool IsRemoteCallAllowed() const override { return wrapped_->IsRemoteCallAllowed(); }
  bool merge_host_to_device_stream() const override {
    return wrapped_->merge_host_to_device_stream();
  }
  bool merge_device_to_host_stream() const override {
    return wrapped_->merge_device_to_host_stream();
  }
  bool merge_device_to_device_stream() const override {
    return wrapped_->merge_device_to_device_stream();
  }

 private:
  void SpreadOutputs(tensorflow::OpKernelContext* context) const;

  tensorflow::Device* const wrapped_;
  tensorflow::ResourceMgr* const resources_;
  // The wrapped device's allocator for plain host memory; NULL for an accelerator.
  tensorflow::Allocator* const plain_;
  ConstantStore* const constants_;
  Restorer* const restorer_;
  const TablePlacement* const tables_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_SESSION_DEVICE_H_
