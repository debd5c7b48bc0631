// The streams of a process' GPUs.
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

// TensorFlow's virtual devices: each has a compute stream, copy streams and an allocator of its
// own, on a GPU that others are on, too. TensorFlow keeps which there are until the process ends,
// and so are these kept: whoever asks first makes them, and all groups use the same.
class VirtualGpus {
 public:
  // How many GPUs a session with these options would use. Fails where there is none.
  static absl::Status Count(const tensorflow::SessionOptions& options, int* gpus);

  // As many virtual devices as asked for, or more, on each GPU. Their memory grows as it is needed,
  // up to what the GPU has, unless the options' virtual_devices say otherwise.
  static absl::Status Get(const tensorflow::SessionOptions& options, int streams,
                          const VirtualGpus** gpus);

  // Refuses what can't run on them.
  static absl::Status CheckGraph(const tensorflow::GraphDef& graph);

  // A GPU's first virtual device has stream 0. The numbers must be among those asked for.
  tensorflow::Device* device(int gpu, int stream) const {
    return devices_[Number(gpu, stream)].get();
  }
  // The N of TensorFlow's own name for it, GPU:N.
  int Number(int gpu, int stream) const { return first_[gpu] + stream; }

 private:
  // What TensorFlow keeps.
  struct Layout {
    std::string visible_device_list;
    std::vector<int> streams;  // by GPU

    bool HasRoomFor(const Layout& other) const;
    std::string ToString() const;
  };

  VirtualGpus() = default;
  // As Count(), whatever the options' device_count.
  static absl::Status CountVisible(const tensorflow::SessionOptions& options, int* gpus);
  static absl::Status Make(const tensorflow::SessionOptions& options, Layout layout,
                           std::unique_ptr<VirtualGpus>* gpus);

  Layout layout_;
  std::vector<int> first_;  // by GPU
  std::vector<std::unique_ptr<tensorflow::Device>> devices_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_VIRTUAL_GPUS_H_
