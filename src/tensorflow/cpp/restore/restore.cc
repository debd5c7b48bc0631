#include "restore/restore.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "abi/caught.h"
#include "absl/crc/crc32c.h"
#include "restore/checkpoint.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/kernels/checkpoint_callback_manager.h"
#include "tensorflow/core/lib/hash/crc32c.h"

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::tstring;

namespace session_group {
namespace {

// The bytes that a thread takes at a time. A multiple of a huge page, so that one thread writes
// each page. Another thread is not worth its start for fewer bytes.
constexpr uint64_t kPart = uint64_t{8} << 20;
// The bytes that are read before their checksum is computed: few enough to still be in the
// second-level cache.
constexpr uint64_t kChunk = uint64_t{256} << 10;

// A tensor that is being read.
struct Output {
  int index;
  Tensor tensor;
  StoredBytes stored;
};

struct Part {
  size_t output;
  uint64_t begin;
  uint64_t size;
  absl::crc32c_t checksum{0};
};

// A restore in progress, which its threads share.
class Reading {
 public:
  explicit Reading(std::vector<Output> outputs) : outputs_(std::move(outputs)) {
    // In the order of the files.
    std::sort(outputs_.begin(), outputs_.end(), [](const Output& a, const Output& b) {
      return std::make_pair(a.stored.shard, a.stored.offset) <
             std::make_pair(b.stored.shard, b.stored.offset);
    });
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const uint64_t size = outputs_[i].stored.size;
      total_ += size;
      for (uint64_t begin = 0; begin < size; begin += kPart) {
        parts_.push_back({i, begin, std::min(kPart, size - begin)});
      }
    }
  }

  // How many of `most` threads have something to do.
  size_t Threads(size_t most) const {
    return std::clamp<size_t>(std::min<uint64_t>(total_ / kPart, parts_.size()), 1, most);
  }

  // Reads parts until none is left. Returns the number of bytes.
  uint64_t Work() noexcept {
    uint64_t read = 0;
    const absl::Status status = Caught([&] {
      while (!has_failed_) {
        const size_t next = next_++;
        if (next >= parts_.size()) break;
        if (!Read(&parts_[next])) has_failed_ = true;
        read += parts_[next].size;
      }
      return absl::OkStatus();
    });
    if (!status.ok()) has_failed_ = true;
    return read;
  }

  void Fail() { has_failed_ = true; }

  // Whether all bytes were read and have the right checksums. To be called after all Work() has
  // returned.
  bool IsGood() const {
    if (has_failed_) return false;
    std::vector<absl::crc32c_t> checksums(outputs_.size());
    for (const Part& part : parts_) {
      absl::crc32c_t& checksum = checksums[part.output];
      checksum = absl::ConcatCrc32c(checksum, part.checksum, part.size);
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (static_cast<uint32_t>(checksums[i]) !=
          tensorflow::crc32c::Unmask(outputs_[i].stored.checksum)) {
        return false;
      }
    }
    return true;
  }

  std::vector<Output>& outputs() { return outputs_; }

 private:
  bool Read(Part* part) const {
    const Output& output = outputs_[part->output];
    char* to = static_cast<char*>(output.tensor.data()) + part->begin;
    for (uint64_t done = 0; done < part->size;) {
      const uint64_t size = std::min(kChunk, part->size - done);
      absl::string_view got;
      const absl::Status read = output.stored.file->Read(output.stored.offset + part->begin + done,
                                                         got, absl::MakeSpan(to + done, size));
      if (!read.ok() || got.size() != size) return false;
      // A file system may return memory of its own.
      if (got.data() != to + done) std::copy(got.begin(), got.end(), to + done);
      part->checksum = absl::ExtendCrc32c(part->checksum, absl::string_view(to + done, size));
      done += size;
    }
    return true;
  }

  std::vector<Output> outputs_;
  std::vector<Part> parts_;
  uint64_t total_ = 0;
  std::atomic<size_t> next_{0};
  std::atomic<bool> has_failed_{false};
};

// Joins the threads, even after an exception.
struct Threads {
  ~Threads() {
    for (std::thread& thread : all) thread.join();
  }
  std::vector<std::thread> all;
};

// Calls the checkpoint callbacks, as TensorFlow's kernel does at the end.
absl::Status CallBack(OpKernelContext* context, const std::string& prefix) {
  using tensorflow::checkpoint::CheckpointCallbackManager;
  tensorflow::ResourceMgr* resources = context->resource_manager();
  if (resources == nullptr) return absl::OkStatus();
  CheckpointCallbackManager* found;
  absl::Status status = resources->LookupOrCreate<CheckpointCallbackManager>(
      resources->default_container(),
      std::string(tensorflow::checkpoint::kCheckpointCallbackManagerResourceName), &found,
      [](CheckpointCallbackManager** made) {
        *made = new CheckpointCallbackManager;
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  tensorflow::core::RefCountPtr<CheckpointCallbackManager> manager(found);
  manager->Restore(prefix);
  return absl::OkStatus();
}

}  // namespace

void Restorer::SetCpus(size_t count, const uint64_t* mask, size_t words) {
  num_cpus_ = count;
  cpus_.assign(mask, mask + words);
}

size_t Restorer::BytesByThread(absl::Span<uint64_t> bytes) const {
  std::lock_guard<std::mutex> lock(mu_);
  const size_t known = std::min(bytes.size(), bytes_by_thread_.size());
  std::copy_n(bytes_by_thread_.begin(), known, bytes.begin());
  return bytes_by_thread_.size();
}

bool Restorer::Restore(OpKernelContext* context) {
  if (num_cpus_ == 0 || context->num_inputs() != 3) return false;
  const Tensor& prefixes = context->input(0);
  const Tensor& names = context->input(1);
  const Tensor& slices = context->input(2);
  const int num_outputs = context->num_outputs();
  if (prefixes.NumElements() != 1 || names.dims() != 1 || slices.dims() != 1 ||
      names.NumElements() != num_outputs || slices.NumElements() != num_outputs) {
    return false;
  }
  const std::string prefix = prefixes.flat<tstring>()(0);
  std::unique_ptr<Checkpoint> checkpoint = Checkpoint::Open(tensorflow::Env::Default(), prefix);
  if (checkpoint == nullptr) return false;

  std::vector<Output> outputs;
  std::vector<std::pair<Wanted, Output>> others;
  for (int i = 0; i < num_outputs; ++i) {
    const Wanted wanted = {names.flat<tstring>()(i), slices.flat<tstring>()(i),
                           context->expected_output_dtype(i)};
    Output output = {i, {}, {}};
    tensorflow::TensorShape shape;
    if (!checkpoint->Find(wanted, &shape, &output.stored)) return false;
    if (!context->allocate_temp(wanted.dtype, shape, &output.tensor, context->output_alloc_attr(i))
             .ok()) {
      return false;
    }
    if (output.stored.file == nullptr) {
      others.emplace_back(wanted, std::move(output));
    } else {
      outputs.push_back(std::move(output));
    }
  }

  Reading reading(std::move(outputs));
  std::vector<uint64_t> bytes(reading.Threads(num_cpus_));
  {
    Threads threads;
    threads.all.reserve(bytes.size() - 1);
    for (size_t i = 1; i < bytes.size(); ++i) {
      try {
        threads.all.emplace_back([this, &reading, read = &bytes[i]] {
          pthread_setname_np(pthread_self(), "sg-restore");
          // The thread has inherited the CPUs of one session. If this call fails, it uses these.
          sched_setaffinity(0, cpus_.size() * sizeof(cpus_[0]),
                            reinterpret_cast<const cpu_set_t*>(cpus_.data()));
          *read = reading.Work();
        });
      } catch (const std::system_error&) {
        // The system refuses another thread, so the ones that exist do the work.
        break;
      }
    }
    for (auto& [wanted, output] : others) {
      if (!checkpoint->Read(wanted, &output.tensor)) {
        // The reader can't be used after a failure.
        reading.Fail();
        break;
      }
    }
    bytes[0] = reading.Work();
  }
  if (!reading.IsGood()) return false;

  for (Output& output : reading.outputs()) {
    context->set_output(output.index, std::move(output.tensor));
  }
  for (auto& [wanted, output] : others) {
    context->set_output(output.index, std::move(output.tensor));
  }
  {
    std::lock_guard<std::mutex> lock(mu_);
    bytes_by_thread_.resize(std::max(bytes_by_thread_.size(), bytes.size()));
    for (size_t i = 0; i < bytes.size(); ++i) bytes_by_thread_[i] += bytes[i];
  }
  const absl::Status called = CallBack(context, prefix);
  if (!called.ok()) context->SetStatus(called);
  return true;
}

}  // namespace session_group
