// C++ over session_group.h: owners that clean up, and results that carry an error message. For
// programs that use TensorFlow's C API, with TF_Tensor. Header-only, C++17, no exceptions.
//
//   session_group::Options options;
//   options.set_session_num(4);
//   auto group = session_group::Group::Load(session_options, dir, {"serve"}, options);
//   if (!group) return fail(group.status().message());
//   auto outputs = group->Run({{"ids:0", ids.get()}}, {"score:0"});
//   if (!outputs) return fail(outputs.status().message());
//
// Classes are move-only; a moved-from object may only be assigned to or destroyed. Any number of
// threads may use a Group at the same time; it may be destroyed when none does.
#ifndef SESSION_GROUP_HPP_
#define SESSION_GROUP_HPP_

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "session_group.h"

namespace session_group {

// How a call ended: TF_OK, or a code and a message that says what to change.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(TF_Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == TF_OK; }
  TF_Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  TF_Code code_ = TF_OK;
  std::string message_;
};

// A value, or the status that says why there is none. Check first: operator* and -> need a value.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit on purpose

  explicit operator bool() const { return value_.has_value(); }
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

template <typename T, void (*Delete)(T*)>
struct Deleter {
  void operator()(T* pointer) const { Delete(pointer); }
};

// Owners of TensorFlow's own C types.
using Tensor = std::unique_ptr<TF_Tensor, Deleter<TF_Tensor, TF_DeleteTensor>>;
using Buffer = std::unique_ptr<TF_Buffer, Deleter<TF_Buffer, TF_DeleteBuffer>>;
using DeviceList = std::unique_ptr<TF_DeviceList, Deleter<TF_DeviceList, TF_DeleteDeviceList>>;
using SessionOptions =
    std::unique_ptr<TF_SessionOptions, Deleter<TF_SessionOptions, TF_DeleteSessionOptions>>;

inline SessionOptions NewSessionOptions() { return SessionOptions(TF_NewSessionOptions()); }

namespace internal {

// Calls `f` with a TF_Status* and returns what it reports.
template <typename F>
Status Call(F f) {
  std::unique_ptr<TF_Status, Deleter<TF_Status, TF_DeleteStatus>> status(TF_NewStatus());
  f(status.get());
  return TF_GetCode(status.get()) == TF_OK
             ? Status()
             : Status(TF_GetCode(status.get()), TF_Message(status.get()));
}

inline std::vector<const char*> CStrings(const std::vector<std::string>& strings) {
  std::vector<const char*> result;
  result.reserve(strings.size());
  for (const std::string& string : strings) result.push_back(string.c_str());
  return result;
}

}  // namespace internal

// How to make a group; see the functions with the same names in session_group.h.
class Options {
 public:
  Options() : options_(NewSessionGroupOptions()) {}

  void set_session_num(int32_t n) { SessionGroupOptions_SetSessionNum(get(), n); }
  void set_worker_threads(int32_t n) { SessionGroupOptions_SetWorkerThreads(get(), n); }
  void set_thread_pool_affinity(bool affinity) {
    SessionGroupOptions_SetThreadPoolAffinity(get(), affinity);
  }
  void set_queue(int32_t capacity, bool wait_when_full) {
    SessionGroupOptions_SetQueue(get(), capacity, wait_when_full);
  }
  void set_drain_timeout(int64_t milliseconds) {
    SessionGroupOptions_SetDrainTimeout(get(), milliseconds);
  }
  void set_multi_stream(bool multi_stream) {
    SessionGroupOptions_SetMultiStream(get(), multi_stream);
  }
  Status set_gpu_ids(const std::vector<int32_t>& ids) {
    return internal::Call([&](TF_Status* status) {
      SessionGroupOptions_SetGpuIds(get(), ids.data(), static_cast<int32_t>(ids.size()), status);
    });
  }
  Status set_cpuset(const std::string& cpuset) {
    return internal::Call(
        [&](TF_Status* status) { SessionGroupOptions_SetCpuset(get(), cpuset.c_str(), status); });
  }
  Status set_policy(const std::string& name) {
    return internal::Call(
        [&](TF_Status* status) { SessionGroupOptions_SetPolicy(get(), name.c_str(), status); });
  }
  // `choose` is copied. Many threads call it at the same time, as choose(const SessionGroupLoad&);
  // it returns the number of a session. If it throws, the request fails with TF_INTERNAL and
  // what().
  template <typename F>
  void set_policy_fn(F choose) {
    static_assert(std::is_invocable_r_v<int32_t, F&, const SessionGroupLoad&>);
    SessionGroupOptions_SetPolicyFn(
        get(),
        [](void* context, const SessionGroupLoad* load) -> int32_t {
          return (*static_cast<F*>(context))(*load);
        },
        new F(std::move(choose)), [](void* context) { delete static_cast<F*>(context); });
  }
  Status set_execution(const std::string& name) {
    return internal::Call(
        [&](TF_Status* status) { SessionGroupOptions_SetExecution(get(), name.c_str(), status); });
  }

  Status set_kernels(const std::string& name) {
    return internal::Call(
        [&](TF_Status* status) { SessionGroupOptions_SetKernels(get(), name.c_str(), status); });
  }

  Status set_optimization(const std::string& name, bool enabled) {
    return internal::Call([&](TF_Status* status) {
      SessionGroupOptions_SetOptimization(get(), name.c_str(), enabled, status);
    });
  }

  SessionGroupOptions* get() const { return options_.get(); }

 private:
  std::unique_ptr<SessionGroupOptions, Deleter<SessionGroupOptions, SessionGroupOptions_Delete>>
      options_;
};

// A feed: the name of a tensor of the graph, and its value. The tensor is not owned.
using Feed = std::pair<std::string, TF_Tensor*>;

namespace internal {

// Names and tensors in the form that the C functions take. Points into the feeds.
struct Feeds {
  explicit Feeds(const std::vector<Feed>& feeds) {
    names.reserve(feeds.size());
    tensors.reserve(feeds.size());
    for (const Feed& feed : feeds) {
      names.push_back(feed.first.c_str());
      tensors.push_back(feed.second);
    }
  }

  std::vector<const char*> names;
  std::vector<TF_Tensor*> tensors;
};

}  // namespace internal

// What a request may contain besides feeds and fetches.
struct RunArguments {
  std::vector<std::string> targets;        // operations to run without fetching anything
  int32_t session_id = -1;                 // modulo the number of sessions; < 0: the policy chooses
  const TF_Buffer* run_options = nullptr;  // a serialised RunOptions
  TF_Buffer* run_metadata = nullptr;       // empty; receives a serialised RunMetadata
};

// Feeds, fetches and targets prepared for all sessions of a group. May be destroyed before or after
// the group, while none of its runs is in progress.
class Callable {
 public:
  // Returns one tensor for each fetch, in their order. Inputs are in the order of the feeds.
  Result<std::vector<Tensor>> Run(const std::vector<TF_Tensor*>& inputs) const {
    std::vector<TF_Tensor*> fetched(static_cast<size_t>(num_fetches_), nullptr);
    Status ran = internal::Call([&](TF_Status* status) {
      SessionGroupCallable_Run(get(), inputs.data(), static_cast<int32_t>(inputs.size()),
                               fetched.data(), num_fetches_, status);
    });
    if (!ran.ok()) return ran;
    return std::vector<Tensor>(fetched.begin(), fetched.end());
  }

  SessionGroupCallable* get() const { return callable_.get(); }

 private:
  friend class Group;
  Callable(SessionGroupCallable* callable, int32_t num_fetches)
      : callable_(callable), num_fetches_(num_fetches) {}

  std::unique_ptr<SessionGroupCallable, Deleter<SessionGroupCallable, SessionGroupCallable_Delete>>
      callable_;
  int32_t num_fetches_;
};

// N sessions that share variables and tables.
class Group {
 public:
  static Result<Group> New(const SessionOptions& session_options, const Options& options) {
    SessionGroup* group = nullptr;
    Status made = internal::Call([&](TF_Status* status) {
      group = NewSessionGroupWithOptions(session_options.get(), options.get(), status);
    });
    if (!made.ok()) return made;
    return Group(group);
  }

  // If meta_graph_def is not NULL, it must be empty, and receives the serialised MetaGraphDef.
  static Result<Group> Load(const SessionOptions& session_options, const std::string& export_dir,
                            const std::vector<std::string>& tags, const Options& options,
                            TF_Buffer* meta_graph_def = nullptr,
                            const TF_Buffer* run_options = nullptr) {
    const std::vector<const char*> tag_names = internal::CStrings(tags);
    SessionGroup* group = nullptr;
    Status loaded = internal::Call([&](TF_Status* status) {
      group = LoadSessionGroupFromSavedModel(
          session_options.get(), run_options, export_dir.c_str(), tag_names.data(),
          static_cast<int32_t>(tag_names.size()), options.get(), meta_graph_def, status);
    });
    if (!loaded.ok()) return loaded;
    return Group(group);
  }

  Status Create(const void* graph_def, size_t size) {
    return internal::Call(
        [&](TF_Status* status) { SessionGroup_Create(get(), graph_def, size, status); });
  }
  Status Extend(const void* graph_def, size_t size) {
    return internal::Call(
        [&](TF_Status* status) { SessionGroup_Extend(get(), graph_def, size, status); });
  }

  // Runs a request once on each session, on all of them at the same time.
  Status WarmUp(const std::vector<Feed>& feeds, const std::vector<std::string>& fetches,
                const std::vector<std::string>& targets = {}) {
    const internal::Feeds split(feeds);
    const std::vector<const char*> fetch_names = internal::CStrings(fetches);
    const std::vector<const char*> target_names = internal::CStrings(targets);
    return internal::Call([&](TF_Status* status) {
      SessionGroup_WarmUp(get(), split.names.data(), split.tensors.data(),
                          static_cast<int32_t>(feeds.size()), fetch_names.data(),
                          static_cast<int32_t>(fetch_names.size()), target_names.data(),
                          static_cast<int32_t>(target_names.size()), status);
    });
  }

  // Returns one tensor for each fetch, in their order.
  Result<std::vector<Tensor>> Run(const std::vector<Feed>& feeds,
                                  const std::vector<std::string>& fetches,
                                  const RunArguments& arguments = {}) {
    const internal::Feeds split(feeds);
    const std::vector<const char*> fetch_names = internal::CStrings(fetches);
    const std::vector<const char*> target_names = internal::CStrings(arguments.targets);
    std::vector<TF_Tensor*> fetched(fetches.size(), nullptr);
    Status ran = internal::Call([&](TF_Status* status) {
      SessionGroup_RunOn(get(), arguments.session_id, arguments.run_options, split.names.data(),
                         split.tensors.data(), static_cast<int32_t>(feeds.size()),
                         fetch_names.data(), fetched.data(), static_cast<int32_t>(fetches.size()),
                         target_names.data(), static_cast<int32_t>(target_names.size()),
                         arguments.run_metadata, status);
    });
    if (!ran.ok()) return ran;
    return std::vector<Tensor>(fetched.begin(), fetched.end());
  }

  Result<Callable> MakeCallable(const std::vector<std::string>& feeds,
                                const std::vector<std::string>& fetches,
                                const std::vector<std::string>& targets = {}) {
    const std::vector<const char*> feed_names = internal::CStrings(feeds);
    const std::vector<const char*> fetch_names = internal::CStrings(fetches);
    const std::vector<const char*> target_names = internal::CStrings(targets);
    SessionGroupCallable* callable = nullptr;
    Status made = internal::Call([&](TF_Status* status) {
      callable = SessionGroup_MakeCallable(
          get(), feed_names.data(), static_cast<int32_t>(feed_names.size()), fetch_names.data(),
          static_cast<int32_t>(fetch_names.size()), target_names.data(),
          static_cast<int32_t>(target_names.size()), status);
    });
    if (!made.ok()) return made;
    return Callable(callable, static_cast<int32_t>(fetches.size()));
  }

  int32_t session_num() const { return SessionGroup_SessionNum(group_.get()); }

  Result<DeviceList> ListDevices() {
    DeviceList devices;
    Status listed = internal::Call(
        [&](TF_Status* status) { devices.reset(SessionGroup_ListDevices(get(), status)); });
    if (!listed.ok()) return listed;
    return devices;
  }

  Result<SessionGroupStats> Stats(int32_t session_id) const {
    SessionGroupStats stats;
    stats.struct_size = sizeof(stats);
    Status got = internal::Call([&](TF_Status* status) {
      SessionGroup_GetStats(group_.get(), session_id, &stats, status);
    });
    if (!got.ok()) return got;
    return stats;
  }

  // JSON and Prometheus text; SessionGroup_Describe(), SessionGroup_Explain() and
  // SessionGroup_MetricsText() document them.
  Result<std::string> Describe() const { return Text(SessionGroup_Describe); }
  Result<std::string> Explain() const { return Text(SessionGroup_Explain); }
  Result<std::string> MetricsText() const { return Text(SessionGroup_MetricsText); }

  Status Close() {
    return internal::Call([&](TF_Status* status) { SessionGroup_Close(get(), status); });
  }

  SessionGroup* get() const { return group_.get(); }

 private:
  explicit Group(SessionGroup* group) : group_(group) {}

  Result<std::string> Text(void (*fill)(const SessionGroup*, TF_Buffer*, TF_Status*)) const {
    const Buffer buffer(TF_NewBuffer());
    Status filled =
        internal::Call([&](TF_Status* status) { fill(group_.get(), buffer.get(), status); });
    if (!filled.ok()) return filled;
    return std::string(static_cast<const char*>(buffer->data), buffer->length);
  }

  std::unique_ptr<SessionGroup, Deleter<SessionGroup, SessionGroup_Delete>> group_;
};

// The memory of large tensors, for all groups together.
inline Result<SessionGroupMemoryStats> MemoryStats() {
  SessionGroupMemoryStats stats;
  stats.struct_size = sizeof(stats);
  Status got =
      internal::Call([&](TF_Status* status) { SessionGroup_GetMemoryStats(&stats, status); });
  if (!got.ok()) return got;
  return stats;
}

}  // namespace session_group

#endif  // SESSION_GROUP_HPP_
