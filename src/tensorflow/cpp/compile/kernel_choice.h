// Chooses the faster of two kernels that compute the same, by the size of the input.
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

// With oneDNN, TensorFlow has two kernels for many operations. The kernel of oneDNN takes some
// microseconds to set up, more than a whole small product takes, but is faster for large ones. The
// first requests of each size measure both kernels for a short time. The decision stays, and holds
// for all sessions of a group. Thread-safe.
class KernelChoice {
 public:
  enum Decision : uint8_t { kOpen, kStock, kOther };

  // Numbers of rows between two powers of two are one size.
  static constexpr int kSizes = 40;
  // The size for this input, by its number of rows: the product of all its dimensions but the last.
  static int Size(const tensorflow::Tensor& input);

  Decision decision(int size) const { return decisions_[size].load(std::memory_order_relaxed); }

  // Whether the calling thread should measure. Returns true to one thread at a time, until it calls
  // EndMeasuring().
  bool BeginMeasuring(int size);
  void EndMeasuring(int size);
  // Adds a sample: how long each kernel took.
  void Measured(int size, int64_t stock_ns, int64_t other_ns);

 private:
  struct Times {
    int samples = 0;
    int64_t stock = INT64_MAX;  // the shortest sample, like `other`
    int64_t other = INT64_MAX;
    bool is_measuring = false;
  };

  std::array<std::atomic<Decision>, kSizes> decisions_{};
  std::mutex mu_;
  std::array<Times, kSizes> times_;
};

// The node as TensorFlow without oneDNN would have it; nothing if it is not a node of oneDNN.
std::optional<tensorflow::NodeDef> WithoutOneDnn(const tensorflow::Node& node,
                                                 const tensorflow::OpRegistryInterface& ops);

}  // namespace session_group

#endif  // SESSION_GROUP_KERNEL_CHOICE_H_
