// Variables that are looked up and locked once instead of by each request.
#ifndef SESSION_GROUP_VARIABLE_READS_H_
#define SESSION_GROUP_VARIABLE_READS_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Tells of what may have changed the variables of a group. Each request reads the count, so it has
// cache lines of its own.
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
  // After a write: requests that begin from now on see it.
  void Add() {
    count_.fetch_add(1, std::memory_order_release);
    std::lock_guard<std::mutex> lock(mu_);
    for (Reader* reader : readers_) reader->Written();
  }
  // From now on there may be writes that nobody tells of, so that nothing can be kept.
  void Untrack() {
    untracked_.store(true, std::memory_order_relaxed);
    Add();
  }
  bool are_untracked() const { return untracked_.load(std::memory_order_relaxed); }
  void AddReader(Reader* reader) {
    std::lock_guard<std::mutex> lock(mu_);
    readers_.insert(reader);
  }
  void RemoveReader(Reader* reader) {
    std::lock_guard<std::mutex> lock(mu_);
    readers_.erase(reader);
  }

 private:
  std::atomic<uint64_t> count_{0};
  std::atomic<bool> untracked_{false};
  alignas(128) std::mutex mu_;
  std::set<Reader*> readers_;
};

// The values of some variables as one session sees them: buffers of its own over the bytes that all
// share. Reading a variable in TensorFlow's way takes the resource manager's lock and the
// variable's, and counts references to its buffer, on cache lines that all cores then write.
//
// A value holds a reference to the bytes, so TensorFlow never writes into them: whoever changes a
// variable whose bytes are in use gives it new ones. (Sparse updates don't once a variable is in
// the mode in which readers copy it; such a variable is not read in this way.) Values are dropped
// with the next write, so that they don't keep bytes in memory that nobody will read.
class VariableReads {
 public:
  struct Variable {
    std::string container;  // empty for the default one
    std::string name;
    tensorflow::DataType dtype;
  };

  // Neither is owned.
  VariableReads(tensorflow::ResourceMgr* resources, const Writes* writes)
      : resources_(resources), writes_(writes) {}

  // Before the first Get(). Gives the index of the variable.
  size_t Add(Variable variable);
  size_t size() const { return variables_.size(); }
  bool empty() const { return variables_.empty(); }

  // Where something was written since `as_of`, gives the values of now and sets `as_of`. False
  // where a variable can't be read so: it has no value, has another type, or may change in place.
  bool Refresh(uint64_t* as_of, std::vector<tensorflow::Tensor>* values) {
    return IsUpToDate(*as_of) || RefreshSlowly(as_of, values);
  }
  // Whether Refresh() has failed and nothing was written since.
  bool HasFailed() const { return IsUpToDate(failed_as_of_.load(std::memory_order_relaxed)); }
  bool IsUpToDate(uint64_t as_of) const { return writes_->count() + 1 == as_of; }
  // Frees the values that are kept here.
  void Drop();

 private:
  bool RefreshSlowly(uint64_t* as_of, std::vector<tensorflow::Tensor>* values);
  bool Read(const Variable& variable, tensorflow::Tensor* value) const;

  tensorflow::ResourceMgr* const resources_;
  const Writes* const writes_;
  std::vector<Variable> variables_;
  // When a variable could not be read: the next request need not try before something is written.
  std::atomic<uint64_t> failed_as_of_{0};
  std::mutex mu_;
  uint64_t as_of_ = 0;  // as in Refresh
  std::vector<tensorflow::Tensor> values_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_VARIABLE_READS_H_
