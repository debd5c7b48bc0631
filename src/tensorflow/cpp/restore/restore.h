// Restores a checkpoint with all CPUs.
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

// Does the work of the operation RestoreV2 for the sessions of a group. TensorFlow's kernel reads
// one tensor after the other on the thread that runs it, and only those of more than 16 million
// elements on others.
class Restorer {
 public:
  static bool Knows(absl::string_view op) { return op == "RestoreV2"; }

  // How many CPUs there are to read with, and a mask of them as sched_setaffinity() takes it.
  // Without them, nothing is restored here. To be called before there are sessions.
  void SetCpus(size_t count, const uint64_t* mask, size_t words);

  // Reads what a RestoreV2 is to read, each byte straight into the memory that it will stay in, by
  // a thread for each CPU, the caller's among them. False where nothing was done: where something
  // is wrong, or unknown here. TensorFlow's kernel then does it, or says what is wrong.
  bool Restore(tensorflow::OpKernelContext* context);

  // How many threads have restored so far, over all restores; the caller's is the first. Tells what
  // each has read, as far as there is room.
  size_t BytesByThread(absl::Span<uint64_t> bytes) const;

 private:
  size_t num_cpus_ = 0;
  std::vector<uint64_t> cpus_;
  mutable std::mutex mu_;
  std::vector<uint64_t> bytes_by_thread_;  // guarded by mu_
};

}  // namespace session_group

#endif  // SESSION_GROUP_RESTORE_H_
