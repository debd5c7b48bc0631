// What MakeCallable() of a GroupSession has made, by handle.
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

// The group's, or one of each session's own.
struct Callable {
  Callable(const tensorflow::CallableOptions& options, std::string serialised)
      : options(options), serialised(std::move(serialised)) {}

  const tensorflow::CallableOptions options;
  const std::string serialised;
  sg_group_callable* prepared = nullptr;
  // By the sessions' numbers, where the group has not prepared it.
  std::vector<tensorflow::Session::CallableHandle> handles;
  bool released = false;
};
// Found without a lock, so that they stay until the session goes; one that was
// released serves the next who asks for the same.
class CallableTable {
 public:
  using Handle = tensorflow::Session::CallableHandle;

  CallableTable() : by_handle_(new std::atomic<Callable*>[kMostCallables]()) {}

  // Where there is no released one with these options, lets `prepare` complete a new one.
  absl::Status Make(const tensorflow::CallableOptions& options,
                    absl::FunctionRef<absl::Status(Callable*)> prepare, Handle* handle);
  absl::Status Find(Handle handle, Callable** callable) const;
  absl::Status Release(Handle handle);
  // Released ones, too. Not while others are made.
  const std::vector<std::unique_ptr<Callable>>& all() const { return callables_; }

 private:
  static constexpr size_t kMostCallables = 1024;
  std::mutex mu_;  // guards making callables
  std::vector<std::unique_ptr<Callable>> callables_;
  std::unique_ptr<std::atomic<Callable*>[]> by_handle_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_CALLABLE_TABLE_H_
