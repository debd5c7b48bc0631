// GPUs for tests, on a machine that has none: devices of the type "GPU" for the CPU build of
// TensorFlow, which compute on the CPU in memory of their own. A library that is loaded into a
// process, as TensorFlow's CUDA build brings its own devices.
//
// As TensorFlow's, the factory honours visible_device_list and virtual_devices, and keeps for the
// process which virtual device is on which GPU. Each virtual device has an allocator of its own.
//
// Environment: TEST_GPU_COUNT, how many GPUs (2); TEST_GPU_MEMORY_MB, of each (1024);
// TEST_GPU_MOST, how many virtual devices each can have (64).
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/common_runtime/local_device.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using namespace tensorflow;

int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

// The memory of a GPU, which its virtual devices take from.
struct Gpu {
  std::atomic<int64_t> used{0};
  // Kernels that use the variables now.
  std::atomic<int> reading{0};
  std::atomic<int> writing{0};
};

Gpu* GpuNumber(int i) {
  static auto* const gpus = new std::vector<Gpu>(64);
  return &(*gpus)[i];
}

class GpuAllocator final : public Allocator {
 public:
  GpuAllocator(Gpu* gpu, int64_t limit) : gpu_(gpu), limit_(limit) {}

  std::string Name() override { return "test_gpu"; }
  void* AllocateRaw(size_t alignment, size_t bytes) override {
    // The size, for giving it back, stands before the memory.
    const size_t room = std::max<size_t>(alignment, 64);
    const int64_t all = bytes + room;
    if (gpu_->used.fetch_add(all) + all > limit_) {
      gpu_->used -= all;
      return nullptr;
    }
    char* memory =
        static_cast<char*>(port::AlignedMalloc(all, static_cast<std::align_val_t>(room)));
    std::memcpy(memory + room - 16, &all, sizeof(all));
    std::memcpy(memory + room - 8, &room, sizeof(room));
    return memory + room;
  }
  void DeallocateRaw(void* at) override {
    int64_t all;
    size_t room;
    std::memcpy(&all, static_cast<char*>(at) - 16, sizeof(all));
    std::memcpy(&room, static_cast<char*>(at) - 8, sizeof(room));
    gpu_->used -= all;
    port::AlignedFree(static_cast<char*>(at) - room);
  }

 private:
  Gpu* const gpu_;
  const int64_t limit_;
};

void Copy(const Tensor& from, Tensor* to, StatusCallback done) {
  if (DataTypeCanUseMemcpy(from.dtype())) {
    std::memcpy(const_cast<char*>(to->tensor_data().data()), from.tensor_data().data(),
                from.TotalBytes());
  } else {
    *to = from;
  }
  done(absl::OkStatus());
}

class Context final : public DeviceContext {
 public:
  void CopyCPUTensorToDevice(const Tensor* cpu, Device*, Tensor* gpu, StatusCallback done,
                             bool) const override {
    Copy(*cpu, gpu, std::move(done));
  }
  void CopyDeviceTensorToCPU(const Tensor* gpu, absl::string_view, Device*, Tensor* cpu,
                             StatusCallback done) override {
    Copy(*gpu, cpu, std::move(done));
  }
  void CopyTensorInSameDevice(const Tensor* from, Device*, Tensor* to,
                              StatusCallback done) const override {
    Copy(*from, to, std::move(done));
  }
};

class TestGpu final : public LocalDevice {
 public:
  TestGpu(const SessionOptions& options, const std::string& name, int gpu, int64_t limit)
      : LocalDevice(options, Device::BuildDeviceAttributes(name, "GPU", Bytes(limit), {},
                                                           absl::StrCat("device: ", gpu))),
        gpu_(GpuNumber(gpu)),
        allocator_(gpu_, limit),
        context_(new Context) {
    info_.default_context = context_.get();
    set_tensorflow_accelerator_device_info(&info_);
  }

  Gpu* gpu() { return gpu_; }

  Allocator* GetAllocator(AllocatorAttributes attributes) override {
    return attributes.on_host() ? cpu_allocator() : &allocator_;
  }
  absl::Status MakeTensorFromProto(const TensorProto& proto, const AllocatorAttributes attributes,
                                   Tensor* tensor) override {
    Tensor parsed(proto.dtype());
    if (!parsed.FromProto(cpu_allocator(), proto))
      return absl::InvalidArgumentError("a bad tensor");
    Tensor own(GetAllocator(attributes), parsed.dtype(), parsed.shape());
    if (!own.IsInitialized()) return absl::ResourceExhaustedError("out of the GPU's memory");
    Copy(parsed, &own, [](const absl::Status&) {});
    *tensor = own;
    return absl::OkStatus();
  }
  absl::Status TryGetDeviceContext(DeviceContext** context) override {
    context_->Ref();
    *context = context_.get();
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    return FromEnvironment("TEST_GPU_SYNC_FAILS", 0) == 0
               ? absl::OkStatus()
               : absl::DataLossError("the stream is lost, on purpose");
  }

 private:
  Gpu* const gpu_;
  GpuAllocator allocator_;
  core::RefCountPtr<Context> context_;
  AcceleratorDeviceInfo info_;
};

class Factory final : public DeviceFactory {
 public:
  absl::Status ListPhysicalDevices(std::vector<std::string>* devices) override {
    for (int i = 0; i < FromEnvironment("TEST_GPU_COUNT", 2); ++i) {
      devices->push_back(absl::StrCat("/physical_device:GPU:", i));
    }
    return absl::OkStatus();
  }

  absl::Status CreateDevices(const SessionOptions& options, const std::string& prefix,
                             std::vector<std::unique_ptr<Device>>* devices) override {
    const auto& gpu_options = options.config.gpu_options();
    std::vector<int> gpus;
    for (int i = 0; i < FromEnvironment("TEST_GPU_COUNT", 2); ++i) gpus.push_back(i);
    if (!gpu_options.visible_device_list().empty()) {
      gpus.clear();
      for (const auto& id : absl::StrSplit(gpu_options.visible_device_list(), ',')) {
        int number;
        if (!absl::SimpleAtoi(id, &number)) return absl::InvalidArgumentError("a bad GPU");
        gpus.push_back(number);
      }
    }
    const auto& virtual_devices = gpu_options.experimental().virtual_devices();
    if (!virtual_devices.empty() && virtual_devices.size() != static_cast<int>(gpus.size())) {
      return absl::UnknownError("the number of GPUs is not that of virtual_devices");
    }
    const int64_t memory = int64_t{FromEnvironment("TEST_GPU_MEMORY_MB", 1024)} << 20;
    int number = 0;
    for (size_t i = 0; i < gpus.size(); ++i) {
      const int n = virtual_devices.empty() ? 1 : virtual_devices[i].memory_limit_mb_size();
      if (n > FromEnvironment("TEST_GPU_MOST", 64)) {
        return absl::ResourceExhaustedError(
            absl::StrCat("GPU ", gpus[i], " can't have ", n, " virtual devices"));
      }
      for (int j = 0; j < n; ++j, ++number) {
        absl::Status fixed = Fix(number, gpus[i]);
        if (!fixed.ok()) return fixed;
        const double limit =
            virtual_devices.empty() ? 1e18 : virtual_devices[i].memory_limit_mb(j) * 1048576.0;
        devices->push_back(std::make_unique<TestGpu>(
            options, absl::StrCat(prefix, "/device:GPU:", number), gpus[i],
            limit < static_cast<double>(memory) ? static_cast<int64_t>(limit) : memory));
      }
    }
    return absl::OkStatus();
  }

 private:
  // TensorFlow's own, too, never forgets where a virtual device is.
  absl::Status Fix(int number, int gpu) {
    static auto* const mu = new std::mutex;
    static auto* const fixed = new std::map<int, int>;
    std::lock_guard<std::mutex> lock(*mu);
    const auto [at, is_new] = fixed->emplace(number, gpu);
    if (is_new || at->second == gpu) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat("TensorFlow device (GPU:", number,
                                                 ") is being mapped to multiple devices (", gpu,
                                                 " now, and ", at->second, " previously)"));
  }
};

REGISTER_LOCAL_DEVICE_FACTORY("GPU", Factory, 210);

// The wrapper that stands for it in a session looks like any device; this is what it wraps.
TestGpu* Underlying(OpKernelContext* context) {
  return static_cast<TestGpu*>(context->device()->UnderlyingDevice());
}

REGISTER_OP("TestGpuWhere")
    .Output("device: string")
    .Output("virtual_device: string")
    .Output("session: int64")
    .Output("resources: int64")
    .Output("memory: int64")
    .SetIsStateful()
    .SetShapeFn(shape_inference::ScalarShape);

// On which device a graph runs, by the name that it knows and by TensorFlow's own; of which
// session, with which resource manager; how many bytes of the GPU are in use.
class Where final : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    TestGpu* gpu = Underlying(context);
    Tensor* output;
    for (int i = 0; i < 5; ++i) {
      OP_REQUIRES_OK(context, context->allocate_output(i, {}, &output));
      if (i == 0) output->scalar<tstring>()() = context->device()->attributes().name();
      if (i == 1) output->scalar<tstring>()() = gpu->name();
      if (i == 2) output->scalar<int64_t>()() = reinterpret_cast<int64_t>(context->device());
      if (i == 3)
        output->scalar<int64_t>()() = reinterpret_cast<int64_t>(context->resource_manager());
      if (i == 4) output->scalar<int64_t>()() = gpu->gpu()->used;
    }
  }
};

REGISTER_KERNEL_BUILDER(Name("TestGpuWhere")
                            .Device("GPU")
                            .HostMemory("device")
                            .HostMemory("virtual_device")
                            .HostMemory("session")
                            .HostMemory("resources")
                            .HostMemory("memory"),
                        Where);

REGISTER_OP("TestGpuRead")
    .Input("value: float")
    .Output("same: float")
    .SetIsStateful()
    .SetShapeFn(shape_inference::UnchangedShape);
REGISTER_OP("TestGpuWrite")
    .Input("variable: resource")
    .SetIsStateful()
    .SetShapeFn(shape_inference::NoOutputs);

// Take a while, and fail where a variable of the GPU is read and written at the same time.
class Read final : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    Gpu* gpu = Underlying(context)->gpu();
    ++gpu->reading;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const bool written = gpu->writing > 0;
    --gpu->reading;
    OP_REQUIRES(context, !written, absl::InternalError("written while it was read"));
    context->set_output(0, context->input(0));
  }
};
class Write final : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    Gpu* gpu = Underlying(context)->gpu();
    const bool alone = gpu->writing++ == 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const bool read = gpu->reading > 0;
    --gpu->writing;
    OP_REQUIRES(context, alone && !read, absl::InternalError("read while it was written"));
  }
};

REGISTER_KERNEL_BUILDER(Name("TestGpuRead").Device("GPU"), Read);
REGISTER_KERNEL_BUILDER(Name("TestGpuWrite").Device("GPU").HostMemory("variable"), Write);

// On the CPU: x, unless its first element is negative, for which it throws.
REGISTER_OP("TestThrow")
    .Input("x: float")
    .Output("y: float")
    .SetShapeFn(shape_inference::UnchangedShape);

class Throw final : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const float first = context->input(0).flat<float>()(0);
    if (first == -1) throw std::runtime_error("on purpose");
    if (first == -2) throw std::bad_alloc();
    if (first == -3) throw 3;
    context->set_output(0, context->input(0));
  }
};

REGISTER_KERNEL_BUILDER(Name("TestThrow").Device("CPU"), Throw);

// What the models of the tests compute on a GPU; TensorFlow's CPU build has no kernels for it.
// Of these, one is repeated over the other.
template <typename Function>
class Binary final : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    const Tensor& a = context->input(0);
    const Tensor& b = context->input(1);
    const Tensor& large = a.dims() >= b.dims() ? a : b;
    const int64_t small = std::min(a.NumElements(), b.NumElements());
    OP_REQUIRES(context, small > 0 && large.NumElements() % small == 0,
                absl::UnimplementedError("two inputs of other shapes"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, large.shape(), &output));
    const auto x = a.flat<float>(), y = b.flat<float>();
    auto z = output->flat<float>();
    for (int64_t i = 0; i < z.size(); ++i) z(i) = Function()(x(i % x.size()), y(i % y.size()));
  }
};

class MatMul final : public OpKernel {
 public:
  explicit MatMul(OpKernelConstruction* context) : OpKernel(context) {
    for (const char* transposed : {"transpose_a", "transpose_b"}) {
      bool is;
      OP_REQUIRES_OK(context, context->GetAttr(transposed, &is));
      OP_REQUIRES(context, !is, absl::UnimplementedError(transposed));
    }
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& a = context->input(0);
    const Tensor& b = context->input(1);
    OP_REQUIRES(context, a.dims() == 2 && b.dims() == 2 && a.dim_size(1) == b.dim_size(0),
                absl::InvalidArgumentError("two matrices that fit are needed"));
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, {a.dim_size(0), b.dim_size(1)}, &output));
    const auto x = a.matrix<float>(), y = b.matrix<float>();
    auto z = output->matrix<float>();
    z.setZero();
    for (int64_t i = 0; i < a.dim_size(0); ++i) {
      for (int64_t k = 0; k < a.dim_size(1); ++k) {
        for (int64_t j = 0; j < b.dim_size(1); ++j) z(i, j) += x(i, k) * y(k, j);
      }
    }
  }
};

class Relu final : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) override {
    Tensor* output;
    OP_REQUIRES_OK(context, context->allocate_output(0, context->input(0).shape(), &output));
    const auto x = context->input(0).flat<float>();
    auto y = output->flat<float>();
    for (int64_t i = 0; i < x.size(); ++i) y(i) = std::max(x(i), 0.0f);
  }
};

#define REGISTER_GPU(op, kernel) \
  REGISTER_KERNEL_BUILDER(Name(op).Device("GPU").TypeConstraint<float>("T"), kernel)
REGISTER_GPU("AddV2", Binary<std::plus<float>>);
REGISTER_GPU("BiasAdd", Binary<std::plus<float>>);
REGISTER_GPU("Mul", Binary<std::multiplies<float>>);
REGISTER_GPU("MatMul", MatMul);
REGISTER_GPU("Relu", Relu);

}  // namespace
