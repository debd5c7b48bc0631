// Looks up variables and tables once instead of for each request.
#ifndef SESSION_GROUP_RESOLVED_READS_H_
#define SESSION_GROUP_RESOLVED_READS_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "execute/writes.h"
#include "tensorflow/core/framework/lookup_interface.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// The values of some variables, and some tables, for one session. TensorFlow's way to read either
// takes the lock of the resource manager and of the variable or table, and counts references, on
// cache lines that all cores then write. Here, each frame has a reference to the table, and buffers
// of its own over the variables' bytes.
//
// A value holds a reference to the bytes, so TensorFlow never writes into them: it gives a variable
// new bytes if its bytes are in use. (Sparse updates write into used bytes once a variable is in
// their mode, but the mode is ended before the variable is read here.) The next write drops the
// values, so that they don't keep memory that nothing reads.
class ResolvedReads {
 public:
  using Table = tensorflow::core::RefCountPtr<tensorflow::lookup::LookupInterface>;

  // Where a resource is in the resource manager.
  struct Name {
    std::string container;  // empty for the default one
    std::string name;

    bool operator==(const Name& other) const {
      return name == other.name && container == other.container;
    }
  };
  struct Variable : Name {
    tensorflow::DataType dtype;
  };
  // Different for different variables and tables.
  static std::string Key(const Variable& variable) { return Key("variable", variable); }
  static std::string TableKey(const Name& table) { return Key("table", table); }

  // What a frame has.
  struct Values {
    // They stay where they are, because there are pointers to them.
    std::vector<tensorflow::Tensor> variables;
    std::vector<Table> tables;
    uint64_t as_of = 0;
  };

  // Owns neither.
  ResolvedReads(tensorflow::ResourceMgr* resources, Writes* writes)
      : resources_(resources), writes_(writes) {}

  // To be called before the first Refresh(). Return the index of the variable or table.
  size_t Add(Variable variable);
  size_t AddTable(Name table);
  size_t num_variables() const { return variables_.size(); }
  size_t num_tables() const { return tables_.size(); }
  bool empty() const { return variables_.empty() && tables_.empty(); }

  // Updates the values of a frame, if something was written since. Returns false if a variable
  // can't be read in this way, because it has no value, has another type, or is being changed in
  // place, or if a table is not there.
  bool Refresh(Values* values) { return IsUpToDate(values->as_of) || RefreshSlowly(values); }
  // Whether Refresh() has failed, nothing was written since, and it is too early to try again.
  bool HasFailed();
  // The keys of what Refresh() last failed for.
  std::set<std::string> Unresolved();
  bool IsUpToDate(uint64_t as_of) const { return writes_->count() + 1 == as_of; }
  // Frees the values that are kept here.
  void Drop();

 private:
  static std::string Key(const char* kind, const Name& name) {
    return std::string(kind) + '\0' + name.container + '\0' + name.name;
  }

  bool RefreshSlowly(Values* values);
  bool Read(const Variable& variable, tensorflow::Tensor* value) const;
  template <typename Resource>
  tensorflow::core::RefCountPtr<Resource> Find(const Name& name) const;

  tensorflow::ResourceMgr* const resources_;
  Writes* const writes_;
  std::vector<Variable> variables_;
  std::vector<Name> tables_;
  // When a variable could not be read. Requests don't try again before the next write, with the
  // exception in HasFailed().
  std::atomic<uint64_t> failed_as_of_{0};
  std::atomic<uint32_t> since_failure_{0};  // requests
  std::mutex mu_;
  std::set<std::string> unresolved_;
  Values values_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_RESOLVED_READS_H_
