// Looks up and locks variables once instead of for each request.
#ifndef SESSION_GROUP_VARIABLE_READS_H_
#define SESSION_GROUP_VARIABLE_READS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Counts the events that may have changed the variables of a group. Each request reads the count,
// so it has cache lines of its own.
class alignas(128) Writes {
 public:
  // Keeps values of variables.
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

// The values of some variables for one session: buffers of its own over the shared bytes.
// TensorFlow's way to read a variable takes the lock of the resource manager and of the variable,
// and counts references to its buffer, on cache lines that all cores then write.
//
// A value holds a reference to the bytes, so TensorFlow never writes into them: it gives a variable
// new bytes if its bytes are in use. (Sparse updates write into used bytes once a variable is in
// their mode, but the mode is ended before the variable is read here.) The next write drops the
// values, so that they don't keep memory that nothing reads.
class VariableReads {
 public:
  struct Variable {
    std::string container;  // empty for the default one
    std::string name;
    tensorflow::DataType dtype;

    // Different for different variables.
    std::string Key() const { return container + '\0' + name; }
  };

  // Owns neither.
  VariableReads(tensorflow::ResourceMgr* resources, Writes* writes)
      : resources_(resources), writes_(writes) {}

  // To be called before the first Refresh(). Returns the index of the variable.
  size_t Add(Variable variable);
  size_t size() const { return variables_.size(); }
  bool empty() const { return variables_.empty(); }

  // If something was written since `as_of`, updates `values` and `as_of`. Returns false if a
  // variable can't be read in this way, because it has no value, has another type, or is being
  // changed in place.
  bool Refresh(uint64_t* as_of, std::vector<tensorflow::Tensor>* values) {
    return IsUpToDate(*as_of) || RefreshSlowly(as_of, values);
  }
  // Whether Refresh() has failed, nothing was written since, and it is too early to try again.
  bool HasFailed();
  // The keys of the variables for which Refresh() last failed.
  std::set<std::string> Unresolved();
  bool IsUpToDate(uint64_t as_of) const { return writes_->count() + 1 == as_of; }
  // Frees the values that are kept here.
  void Drop();

 private:
  bool RefreshSlowly(uint64_t* as_of, std::vector<tensorflow::Tensor>* values);
  bool Read(const Variable& variable, tensorflow::Tensor* value) const;

  tensorflow::ResourceMgr* const resources_;
  Writes* const writes_;
  std::vector<Variable> variables_;
  // When a variable could not be read. Requests don't try again before the next write, with the
  // exception in HasFailed().
  std::atomic<uint64_t> failed_as_of_{0};
  std::atomic<uint32_t> since_failure_{0};  // requests
  std::mutex mu_;
  std::set<std::string> unresolved_;
  uint64_t as_of_ = 0;  // as in Refresh()
  std::vector<tensorflow::Tensor> values_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_VARIABLE_READS_H_
