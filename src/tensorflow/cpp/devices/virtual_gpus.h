// The streams of the GPUs of a process.
#ifndef SESSION_GROUP_VIRTUAL_GPUS_H_
#define SESSION_GROUP_VIRTUAL_GPUS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/framework/device.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/public/session_options.h"

namespace session_group {

// TensorFlow's virtual devices. Each has a compute stream, copy streams and an allocator of its
// own, on a GPU that it shares with others. TensorFlow keeps them until the process ends, so the
// first group makes them and all groups use the same.
class VirtualGpus {
 public:
  // The number of GPUs that a session with these options would use. Fails if there is no GPU.
  static absl::Status Count(const tensorflow::SessionOptions& options, int* gpus);

  // At least `streams` virtual devices on each GPU. Their memory grows as needed, up to what the
  // GPU has, unless the options' virtual_devices say otherwise.
  static absl::Status Get(const tensorflow::SessionOptions& options, int streams,
                          const VirtualGpus** gpus);

  // Refuses graphs that can't run on virtual devices.
  static absl::Status CheckGraph(const tensorflow::GraphDef& graph);

  // The first virtual device of a GPU has stream 0. `gpu` and `stream` must be in the range that
  // Get() was asked for.
  tensorflow::Device* device(int gpu, int stream) const {
    return devices_[Number(gpu, stream)].get();
  }
  // The N of TensorFlow's own name for the device, GPU:N.
  int Number(int gpu, int stream) const { return first_[gpu] + stream; }

 private:
  // The virtual devices that TensorFlow keeps.
  struct Layout {
    std::string visible_device_list;
    std::vector<int> streams;  // by GPU

    bool HasRoomFor(const Layout& other) const;
    std::string ToString() const;
  };

  VirtualGpus() = default;
  // Like Count(), but ignores the options' device_count.
  static absl::Status CountVisible(const tensorflow::SessionOptions& options, int* gpus);
  static absl::Status Make(const tensorflow::SessionOptions& options, Layout layout,
                           std::unique_ptr<VirtualGpus>* gpus);

  Layout layout_;
  std::vector<int> first_;  // by GPU
  std::vector<std::unique_ptr<tensorflow::Device>> devices_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_VIRTUAL_GPUS_H_
