#include "devices/virtual_gpus.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/framework/attr_value.pb.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/types.h"
#include "tensorflow/core/protobuf/config.pb.h"

namespace session_group {
namespace {

using tensorflow::SessionOptions;

// More than any GPU has, so that each virtual device can grow until the GPU has no memory left. The
// variables are all in the first one.
constexpr float kAllMemoryMb = 1 << 20;

bool EnvironmentIs(const char* name, const char* value) {
  const char* is = std::getenv(name);
  return is != nullptr && absl::AsciiStrToLower(is) == value;
}

// Refuses options that would make TensorFlow end the process, or give all memory to one virtual
// device.
absl::Status Check(const tensorflow::GPUOptions& options) {
  if (options.per_process_gpu_memory_fraction() > 0) {
    return absl::InvalidArgumentError(
        "multi_stream can't be combined with per_process_gpu_memory_fraction: leave it out, or "
        "give gpu_options.experimental.virtual_devices with a memory_limit_mb for each session");
  }
  if (options.experimental().use_cuda_malloc_async() ||
      EnvironmentIs("TF_GPU_ALLOCATOR", "cuda_malloc_async")) {
    return absl::InvalidArgumentError(
        "multi_stream can't be combined with TensorFlow's allocator cuda_malloc_async, whose "
        "memory is bound to the order of one stream: unset TF_GPU_ALLOCATOR");
  }
  if (options.experimental().virtual_devices().empty() &&
      (EnvironmentIs("TF_FORCE_GPU_ALLOW_GROWTH", "false") ||
       EnvironmentIs("TF_FORCE_GPU_ALLOW_GROWTH", "0"))) {
    return absl::InvalidArgumentError(
        "TF_FORCE_GPU_ALLOW_GROWTH keeps memory from growing, so that one stream would take all "
        "memory of a GPU: unset it, or give gpu_options.experimental.virtual_devices with a "
        "memory_limit_mb for each session");
  }
  return absl::OkStatus();
}

// Refuses XLA's clustering, because XLA finds a stream by the number in a device's name, which is 0
// in every session of the group.
absl::Status CheckXla(const tensorflow::ConfigProto& config) {
  const char* flags = std::getenv("TF_XLA_FLAGS");
  if (config.graph_options().optimizer_options().global_jit_level() > 0 ||
      (flags != nullptr && absl::StrContains(flags, "tf_xla_auto_jit"))) {
    return absl::InvalidArgumentError(
        "multi_stream can't be combined with XLA's clustering: leave global_jit_level out of the "
        "ConfigProto, and tf_xla_auto_jit out of TF_XLA_FLAGS");
  }
  return absl::OkStatus();
}

absl::Status RefuseCompiled(
    const std::string& name,
    const google::protobuf::Map<std::string, tensorflow::AttrValue>& attrs) {
  const auto compiled = attrs.find("_XlaMustCompile");
  if (compiled == attrs.end() || !compiled->second.b()) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat(name,
                   " is to be compiled by XLA (jit_compile), which can't follow the sessions "
                   "of a multi-stream group to their streams: export the model without it"));
}

template <typename Nodes>
absl::Status RefuseCompiledNodes(const Nodes& nodes) {
  for (const tensorflow::NodeDef& node : nodes) {
    absl::Status refused = RefuseCompiled(absl::StrCat("node ", node.name()), node.attr());
    if (!refused.ok()) return refused;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status VirtualGpus::CheckGraph(const tensorflow::GraphDef& graph) {
  absl::Status status = RefuseCompiledNodes(graph.node());
  for (const tensorflow::FunctionDef& function : graph.library().function()) {
    status.Update(
        RefuseCompiled(absl::StrCat("function ", function.signature().name()), function.attr()));
    status.Update(RefuseCompiledNodes(function.node_def()));
  }
  return status;
}

bool VirtualGpus::Layout::HasRoomFor(const Layout& other) const {
  if (visible_device_list != other.visible_device_list) return false;
  if (streams.size() != other.streams.size()) return false;
  return std::equal(streams.begin(), streams.end(), other.streams.begin(), std::greater_equal<>());
}

std::string VirtualGpus::Layout::ToString() const {
  const bool same =
      std::all_of(streams.begin(), streams.end(), [this](int n) { return n == streams[0]; });
  std::string text =
      same ? absl::StrCat(streams[0], " virtual devices on each of ", streams.size(), " GPUs")
           : absl::StrCat(absl::StrJoin(streams, ", "), " virtual devices on GPUs 0 to ",
                          streams.size() - 1);
  if (!visible_device_list.empty()) {
    absl::StrAppend(&text, " (visible_device_list \"", visible_device_list, "\")");
  }
  return text;
}

absl::Status VirtualGpus::CountVisible(const SessionOptions& options, int* gpus) {
  tensorflow::DeviceFactory* factory =
      tensorflow::DeviceFactory::GetFactory(tensorflow::DEVICE_GPU);
  if (factory == nullptr) {
    return absl::FailedPreconditionError(
        "multi_stream needs GPUs, but this TensorFlow was built without GPU support: use its CUDA "
        "build, or leave multi_stream out");
  }
  std::vector<std::string> devices;
  absl::Status listed = factory->ListPhysicalDevices(&devices);
  if (!listed.ok() || devices.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("multi_stream needs GPUs, but TensorFlow finds none: see CUDA_VISIBLE_DEVICES "
                     "and the driver",
                     listed.ok() ? "" : ": ", listed.message()));
  }
  const std::string& list = options.config.gpu_options().visible_device_list();
  *gpus = static_cast<int>(list.empty() ? devices.size()
                                        : std::count(list.begin(), list.end(), ',') + 1);
  return absl::OkStatus();
}

absl::Status VirtualGpus::Count(const SessionOptions& options, int* gpus) {
  absl::Status counted = CountVisible(options, gpus);
  if (!counted.ok()) return counted;
  const auto count = options.config.device_count().find("GPU");
  if (count != options.config.device_count().end()) *gpus = std::min(*gpus, count->second);
  if (*gpus > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "multi_stream needs GPUs, but device_count of the ConfigProto allows none: leave \"GPU\" "
      "out");
}

absl::Status VirtualGpus::Get(const SessionOptions& options, int streams,
                              const VirtualGpus** gpus) {
  static auto* const mu = new std::mutex;
  static std::unique_ptr<VirtualGpus>* const made = new std::unique_ptr<VirtualGpus>;
  const tensorflow::GPUOptions& gpu_options = options.config.gpu_options();
  absl::Status fit = Check(gpu_options);
  fit.Update(CheckXla(options.config));
  if (!fit.ok()) return fit;

  // All GPUs that the process sees, because other groups must fit into the same layout.
  int count;
  absl::Status counted = CountVisible(options, &count);
  if (!counted.ok()) return counted;
  Layout layout{gpu_options.visible_device_list(), std::vector<int>(count, streams)};
  const auto& given = gpu_options.experimental().virtual_devices();
  if (!given.empty()) {
    Layout asked{layout.visible_device_list, {}};
    for (const auto& gpu : given) asked.streams.push_back(gpu.memory_limit_mb_size());
    if (!asked.HasRoomFor(layout)) {
      return absl::InvalidArgumentError(
          absl::StrCat("virtual_devices of the ConfigProto are ", asked.ToString(),
                       ", but the group needs ", layout.ToString(),
                       ": give a memory_limit_mb for each session, or leave virtual_devices out"));
    }
    layout = std::move(asked);
  }

  std::lock_guard<std::mutex> lock(*mu);
  if (*made == nullptr) {
    absl::Status status = Make(options, std::move(layout), made);
    if (!status.ok()) return status;
  } else if (!(*made)->layout_.HasRoomFor(layout)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the group needs ", layout.ToString(),
        ", but the first multi-stream group of this process "
        "has made ",
        (*made)->layout_.ToString(),
        ", which TensorFlow keeps until the process ends: "
        "make the group with the most sessions first, all with the same visible_device_list"));
  }
  *gpus = made->get();
  return absl::OkStatus();
}

absl::Status VirtualGpus::Make(const SessionOptions& options, Layout layout,
                               std::unique_ptr<VirtualGpus>* gpus) {
  SessionOptions own = options;
  own.env = tensorflow::Env::Default();  // The caller's may be deleted before the devices.
  own.config.mutable_device_count()->erase("GPU");
  tensorflow::GPUOptions* gpu_options = own.config.mutable_gpu_options();
  if (gpu_options->experimental().virtual_devices().empty()) {
    gpu_options->set_allow_growth(true);
    for (const int streams : layout.streams) {
      auto* gpu = gpu_options->mutable_experimental()->add_virtual_devices();
      for (int i = 0; i < streams; ++i) gpu->add_memory_limit_mb(kAllMemoryMb);
    }
  }
  std::unique_ptr<VirtualGpus> result(new VirtualGpus);
  int count = 0;
  for (const int streams : layout.streams) {
    result->first_.push_back(count);
    count += streams;
  }
  absl::Status created =
      tensorflow::DeviceFactory::GetFactory(tensorflow::DEVICE_GPU)
          ->CreateDevices(own, "/job:localhost/replica:0/task:0", &result->devices_);
  if (!created.ok()) {
    return absl::Status(created.code(), absl::StrCat("TensorFlow can't make ", layout.ToString(),
                                                     ": ", created.message()));
  }
  if (static_cast<int>(result->devices_.size()) != count) {
    return absl::ResourceExhaustedError(
        absl::StrCat("TensorFlow has made ", result->devices_.size(), " of ", layout.ToString()));
  }
  result->layout_ = std::move(layout);
  *gpus = std::move(result);
  return absl::OkStatus();
}

}  // namespace session_group
