// Variables that are looked up and locked once instead of by each request.
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

// What may have changed the variables of a group. Each request reads the count, so it has cache
// lines of its own.
class alignas(128) Writes {
 public:
  // Who keeps values.
  class Reader {
   public:
    virtual ~Reader() = default;
    // Values that are kept are out of date.
    virtual void Written() = 0;
  };

  uint64_t count() const { return count_.load(std::memory_order_acquire); }
  // Around a request that may write: those that begin after its end see what it wrote.
  void Begin();
  void End();
  // After a write that is over.
  void Add();
  // From now on there may be writes that are not announced, so that nothing can be kept.
  void Untrack();
  bool are_untracked() const { return untracked_.load(std::memory_order_relaxed); }
  void AddReader(Reader* reader);
  void RemoveReader(Reader* reader);

  // TensorFlow's sparse updates put a variable into a mode, for good, in which they write into its
  // bytes, whoever refers to them, and in which reading copies it. Ends the mode unless a request
  // is under way that may write, and gives whether it did: then the variable's next sparse update
  // starts anew, with a copy if somebody refers to the bytes. Where updates come all the time, the
  // mode stays for longer and longer. For who holds the variable's lock.
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
  std::mutex active_mu_;  // held while a mode ends, so that no write begins meanwhile
  int active_ = 0;
  std::map<const tensorflow::Var*, SparselyWritten> sparsely_written_;
};

// The values of some variables as one session sees them: buffers of its own over the bytes that all
// share. Reading a variable in TensorFlow's way takes the resource manager's lock and the
// variable's, and counts references to its buffer, on cache lines that all cores then write.
//
// A value holds a reference to the bytes, so TensorFlow never writes into them: whoever changes a
// variable whose bytes are in use gives it new ones. (Sparse updates don't once a variable is in
// their mode, which ends before it is read in this way.) Values are dropped with the next write, so
// that they don't keep bytes in memory that nobody will read.
class VariableReads {
 public:
  struct Variable {
    std::string container;  // empty for the default one
    std::string name;
    tensorflow::DataType dtype;

    // Of variables that differ, different.
    std::string Key() const { return container + '\0' + name; }
  };

  // Neither is owned.
  VariableReads(tensorflow::ResourceMgr* resources, Writes* writes)
      : resources_(resources), writes_(writes) {}

  // Before the first Get(). Gives the index of the variable.
  size_t Add(Variable variable);
  size_t size() const { return variables_.size(); }
  bool empty() const { return variables_.empty(); }

  // Where something was written since `as_of`, gives the values of now and sets `as_of`. False
  // where a variable can't be read so: it has no value, has another type, or is being changed in
  // place.
  bool Refresh(uint64_t* as_of, std::vector<tensorflow::Tensor>* values) {
    return IsUpToDate(*as_of) || RefreshSlowly(as_of, values);
  }
  // Whether Refresh() has failed, nothing was written since, and it is not worth trying again yet.
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
  // When a variable could not be read: the next request need not try before something is written.
  std::atomic<uint64_t> failed_as_of_{0};
  std::atomic<uint32_t> since_failure_{0};  // requests
  std::mutex mu_;
  std::set<std::string> unresolved_;
  uint64_t as_of_ = 0;  // as in Refresh
  std::vector<tensorflow::Tensor> values_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_VARIABLE_READS_H_
