// Counts what may have changed the variables and tables of a group.
#ifndef SESSION_GROUP_WRITES_H_
#define SESSION_GROUP_WRITES_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>

#include "tensorflow/core/framework/resource_var.h"

namespace session_group {

// Counts the events that may have changed the variables and tables of a group. Each request reads
// the count, so it has cache lines of its own.
class alignas(128) Writes {
 public:
  // Keeps values of variables, or tables.
  class Reader {
   public:
    virtual ~Reader() = default;
    // The kept values are outdated.
    virtual void Written() = 0;
  };

  uint64_t count() const { return count_.load(std::memory_order_acquire); }
  // Called before and after a request that may write. Requests that begin after End() see what it
  // wrote.
  void Begin();
  void End();
  // Called after a write that is not a request.
  void Add();
  // From now on, there may be writes that are not announced, so that no values can be kept.
  void Untrack();
  bool are_untracked() const { return untracked_.load(std::memory_order_relaxed); }
  void AddReader(Reader* reader);
  void RemoveReader(Reader* reader);

  // TensorFlow's sparse updates put a variable into a mode for good. In this mode, they write into
  // the variable's bytes even if something refers to these, and each read copies the variable. Ends
  // the mode, unless a request that may write is in progress. Returns whether it did. The next
  // sparse update of the variable then starts the mode again, with a copy if something refers to
  // the bytes. If updates are frequent, the mode stays longer each time. The caller holds the
  // variable's lock.
  bool EndCopyOnRead(tensorflow::Var* variable);

 private:
  struct SparselyWritten {
    int times = 0;
    std::chrono::steady_clock::time_point last;
  };

  std::atomic<uint64_t> count_{0};
  std::atomic<bool> untracked_{false};
  alignas(128) std::mutex mu_;
  std::set<Reader*> readers_;
  std::mutex active_mu_;  // held while a mode is ended, so that no write begins
  int active_ = 0;
  std::map<const tensorflow::Var*, SparselyWritten> sparsely_written_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_WRITES_H_
