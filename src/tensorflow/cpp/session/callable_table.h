// The callables that MakeCallable() of a GroupSession has made, by handle.
#ifndef SESSION_GROUP_CALLABLE_TABLE_H_
#define SESSION_GROUP_CALLABLE_TABLE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "abi/shim.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "tensorflow/core/protobuf/config.pb.h"
#include "tensorflow/core/public/session.h"

namespace session_group {

// A callable of the group or, if the group can't prepare it, one of each session.
struct Callable {
  Callable(const tensorflow::CallableOptions& options, std::string serialised)
      : options(options), serialised(std::move(serialised)) {}

  const tensorflow::CallableOptions options;
  const std::string serialised;
  sg_group_callable* prepared = nullptr;
  // By session number, if `prepared` is NULL.
  std::vector<tensorflow::Session::CallableHandle> handles;
  bool released = false;
};

// Find() takes no lock, so callables stay until the table is destroyed. A released callable serves
// the next caller that makes the same.
class CallableTable {
 public:
  using Handle = tensorflow::Session::CallableHandle;

  CallableTable() : by_handle_(new std::atomic<Callable*>[kMostCallables]()) {}

  // Reuses a released callable with the same options, or makes a new one and calls `prepare` to
  // complete it.
  absl::Status Make(const tensorflow::CallableOptions& options,
                    absl::FunctionRef<absl::Status(Callable*)> prepare, Handle* handle);
  absl::Status Find(Handle handle, Callable** callable) const;
  absl::Status Release(Handle handle);
  // All callables, including released ones. Not thread-safe.
  const std::vector<std::unique_ptr<Callable>>& all() const { return callables_; }

 private:
  static constexpr size_t kMostCallables = 1024;
  std::mutex mu_;  // guards callables_, and is held to make one
  std::vector<std::unique_ptr<Callable>> callables_;
  std::unique_ptr<std::atomic<Callable*>[]> by_handle_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_CALLABLE_TABLE_H_
