// Restores checkpoints with all CPUs.
#ifndef SESSION_GROUP_RESTORE_H_
#define SESSION_GROUP_RESTORE_H_

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace session_group {

// Runs the operation RestoreV2 for the sessions of a group. TensorFlow's kernel reads one tensor
// after the other on one thread, and uses other threads only for tensors of more than 16 million
// elements.
class Restorer {
 public:
  static bool Knows(absl::string_view op) { return op == "RestoreV2"; }

  // Sets the CPUs to read with: their number, and a mask as sched_setaffinity() takes it. Before
  // this call, Restore() does nothing. To be called before there are sessions.
  void SetCpus(size_t count, const uint64_t* mask, size_t words);

  // Does what the kernel of RestoreV2 does, but each byte is read directly into its final memory,
  // by one thread for each CPU, including the calling thread. Returns false, without an effect, if
  // something is wrong or not known here. Then TensorFlow's kernel must run, which restores the
  // tensors or reports the error.
  bool Restore(tensorflow::OpKernelContext* context);

  // The number of threads in the largest restore so far; the first is the calling thread. Writes
  // how many bytes each of them has read in all restores to `bytes`, as far as there is room.
  size_t BytesByThread(absl::Span<uint64_t> bytes) const;

 private:
  size_t num_cpus_ = 0;
  std::vector<uint64_t> cpus_;
  mutable std::mutex mu_;
  std::vector<uint64_t> bytes_by_thread_;  // guarded by mu_
};

}  // namespace session_group

#endif  // SESSION_GROUP_RESTORE_H_
