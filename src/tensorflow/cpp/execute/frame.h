// The memory of one run of a program.
#ifndef SESSION_GROUP_FRAME_H_
#define SESSION_GROUP_FRAME_H_

#include <atomic>
#include <cstdint>
#include <new>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "execute/resolved_reads.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Memory that shares no cache line with other memory: threads write to frames all the time.
template <typename T>
struct OwnLines {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{128};  // processors fetch lines in pairs

  OwnLines() = default;
  template <typename U>
  OwnLines(const OwnLines<U>&) {}  // NOLINT: as allocators convert
  T* allocate(size_t n) {
    const size_t bytes = (n * sizeof(T) + 127) / 128 * 128;
    return static_cast<T*>(::operator new(bytes, kAlignment));
  }
  void deallocate(T* p, size_t) { ::operator delete(p, kAlignment); }
  bool operator==(const OwnLines&) const { return true; }
  bool operator!=(const OwnLines&) const { return false; }
};

// Made once and reused. Only one run uses it at a time.
struct alignas(128) Frame {
  template <typename T>
  using Vector = std::vector<T, OwnLines<T>>;

  explicit Frame(tensorflow::CancellationManager* closing) : cancellation(closing) {}

  // A number that no other run has. TensorFlow's sessions count their steps from 0.
  int64_t NextStep() {
    static std::atomic<int64_t> next{int64_t{1} << 62};
    constexpr int64_t kAtOnce = 4096;  // so that frames rarely write to `next`
    if (next_step == last_step) {
      next_step = next.fetch_add(kAtOnce, std::memory_order_relaxed);
      last_step = next_step + kAtOnce;
    }
    return next_step++;
  }

  Vector<tensorflow::Tensor> feeds;
  ResolvedReads::Values reads;
  Vector<tensorflow::Tensor> slots;
  // Second references to slots with several users, which keep kernels from writing to them in
  // place.
  Vector<tensorflow::Tensor> guards;
  // The inputs of all steps: pointers to the tensors of this frame and to constants.
  Vector<tensorflow::TensorValue> inputs;
  Vector<uint8_t> literals;  // 1 if the literal holds
  std::optional<absl::Time> deadline;
  int until_look = 0;     // steps until the next look at the clock
  int64_t last_tick = 0;  // of the coarse clock
  int64_t next_step = 0;
  int64_t last_step = 0;  // of those that the frame has taken
  tensorflow::CancellationManager cancellation;
  tensorflow::OpKernelContext::Params params;
};

}  // namespace session_group

#endif  // SESSION_GROUP_FRAME_H_
