// Which of two kernels that compute the same is the faster one, by how much there is to compute.
#ifndef SESSION_GROUP_KERNEL_CHOICE_H_
#define SESSION_GROUP_KERNEL_CHOICE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

#include "tensorflow/core/framework/node_def.pb.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

// With oneDNN, TensorFlow has two kernels for many operations. oneDNN's takes some microseconds to
// set up, which is more than a small product takes; for large ones it is the faster. Measured by
// the first request of each size, where that does not take long, for all sessions of a group: what
// is decided stays. Thread-safe.
class KernelChoice {
 public:
  enum Decision : uint8_t { kOpen, kStock, kOther };

  // Sizes between two powers of two are one.
  static constexpr int kSizes = 40;
  // Of a kernel that has this input: by its rows, which is all but its last dimension.
  static int Size(const tensorflow::Tensor& input);

  Decision decision(int size) const { return decisions_[size].load(std::memory_order_relaxed); }

  // Whether the calling thread is to measure, one at a time: until it calls EndMeasuring().
  bool BeginMeasuring(int size);
  void EndMeasuring(int size);
  // How long each took.
  void Measured(int size, int64_t stock_ns, int64_t other_ns);

 private:
  struct Times {
    int samples = 0;
    int64_t stock = INT64_MAX;  // the shortest, as of the other
    int64_t other = INT64_MAX;
    bool is_measuring = false;
  };

  std::array<std::atomic<Decision>, kSizes> decisions_{};
  std::mutex mu_;
  std::array<Times, kSizes> times_;
};

// The node as TensorFlow without oneDNN would have it; nothing where it is not one of oneDNN's.
std::optional<tensorflow::NodeDef> WithoutOneDnn(const tensorflow::Node& node,
                                                 const tensorflow::OpRegistryInterface& ops);

}  // namespace session_group

#endif  // SESSION_GROUP_KERNEL_CHOICE_H_
