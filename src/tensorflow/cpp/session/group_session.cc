#include "session/group_session.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "abi/handles.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "graph/prepare_graph.h"
#include "tensorflow/core/common_runtime/session_factory.h"
#include "tensorflow/core/lib/strings/proto_serialization.h"
#include "tensorflow/core/protobuf/config.pb.h"

using session_group::GroupSession;
using tensorflow::Tensor;

// What a request is made of. The group runs it in one of two ways.
struct sg_tensors {
  // As many as there are fetches.
  GroupSession::Tensors* fetched;
  size_t num_fetches;
  tensorflow::RunMetadata* metadata;  // or NULL

  virtual ~sg_tensors() = default;
  virtual size_t num_feeds() const = 0;
  virtual const Tensor* feed(size_t i) const = 0;
  virtual absl::Status RunOn(sg_session* session, const tensorflow::RunOptions& options) = 0;
};

struct sg_visit {
  virtual ~sg_visit() = default;
  virtual absl::Status Visit(sg_session* session, int32_t number) = 0;
};

TF_Status* sg_tensors_run_program(sg_tensors* call, sg_instance* callable, const sg_order* order,
                                  int64_t timeout_ms, sg_run_notes* notes) {
  return session_group::NewStatus(session_group::Caught([&]() -> absl::Status {
    absl::InlinedVector<const Tensor*, 16> feeds(call->num_feeds());
    for (size_t i = 0; i < feeds.size(); ++i) feeds[i] = call->feed(i);
    std::optional<absl::Time> deadline;
    if (timeout_ms > 0) deadline = absl::Now() + absl::Milliseconds(timeout_ms);
    if (call->fetched != nullptr) call->fetched->clear();
    if (call->num_fetches == 0) return callable->Run(*order, feeds, deadline, {}, notes);
    call->fetched->resize(call->num_fetches);
    absl::Status ran =
        callable->Run(*order, feeds, deadline, absl::MakeSpan(*call->fetched), notes);
    if (!ran.ok()) call->fetched->clear();
    return ran;
  }));
}

TF_Status* sg_tensors_run_session(sg_tensors* call, sg_session* session,
                                  const sg_run_options* options) {
  return session_group::NewStatus(
      session_group::Caught([&] { return call->RunOn(session, options->proto); }));
}

void sg_tensors_clear_outputs(sg_tensors* call) {
  if (call->fetched != nullptr) call->fetched->clear();
  if (call->metadata != nullptr) call->metadata->Clear();
}

TF_Status* sg_visit_session(sg_visit* visit, sg_session* session, int32_t number) {
  return session_group::NewStatus(
      session_group::Caught([&] { return visit->Visit(session, number); }));
}

namespace session_group {
namespace {

using tensorflow::CallableOptions;
using tensorflow::GraphDef;
using tensorflow::RunMetadata;
using tensorflow::RunOptions;

absl::Status Take(TF_Status* status) {
  if (status == nullptr) return absl::OkStatus();
  absl::Status taken = tsl::StatusFromTF_Status(status);
  TF_DeleteStatus(status);
  return taken;
}

// Calls `body` with a TF_Status to report in.
template <typename Body>
absl::Status Reported(Body body) {
  TF_Status* status = TF_NewStatus();
  body(status);
  return Take(status);
}

sg_str Str(const std::string& string) { return {string.data(), string.size()}; }

using Strs = absl::InlinedVector<sg_str, 32>;

template <typename Strings>
Strs ToStrs(const Strings& strings) {
  Strs strs;
  strs.reserve(strings.size());
  for (const std::string& string : strings) strs.push_back(Str(string));
  return strs;
}

sg_names Names(const Strs& feeds, const Strs& fetches, const Strs& targets) {
  return {feeds.data(),   feeds.size(),   fetches.data(),
          fetches.size(), targets.data(), targets.size()};
}

// Session::Run().
struct NamedCall final : sg_tensors {
  NamedCall(const GroupSession::Feeds& inputs, const GroupSession::Names& outputs,
            const GroupSession::Names& targets, GroupSession::Tensors* fetched,
            RunMetadata* metadata)
      : inputs(inputs), outputs(outputs), targets(targets) {
    this->fetched = fetched;
    this->metadata = metadata;
    num_fetches = outputs.size();
  }

  size_t num_feeds() const override { return inputs.size(); }
  const Tensor* feed(size_t i) const override { return &inputs[i].second; }
  absl::Status RunOn(sg_session* session, const RunOptions& options) override {
    RunMetadata dropped;
    return session->Compute([&] {
      return session->session->Run(options, inputs, outputs, targets, fetched,
                                   metadata != nullptr ? metadata : &dropped);
    });
  }

  const GroupSession::Feeds& inputs;
  const GroupSession::Names& outputs;
  const GroupSession::Names& targets;
};

// Session::RunCallable().
struct CallableCall final : sg_tensors {
  CallableCall(const CallableOptions& options, const GroupSession::Tensors& inputs,
               GroupSession::Tensors* fetched, RunMetadata* metadata)
      : options(options), inputs(inputs) {
    this->fetched = fetched;
    this->metadata = metadata;
    num_fetches = options.fetch_size();
  }

  size_t num_feeds() const override { return inputs.size(); }
  const Tensor* feed(size_t i) const override { return &inputs[i]; }
  absl::Status RunOn(sg_session* session, const RunOptions& run_options) override {
    return RunOn(session, run_options, GroupSession::ThreadPools());
  }
  absl::Status RunOn(sg_session* session, const RunOptions& run_options,
                     const GroupSession::ThreadPools& pools) {
    GroupSession::Feeds named;
    named.reserve(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) named.emplace_back(options.feed(i), inputs[i]);
    const GroupSession::Names fetches(options.fetch().begin(), options.fetch().end());
    const GroupSession::Names targets(options.target().begin(), options.target().end());
    RunMetadata dropped;
    return session->Compute([&] {
      return session->session->Run(run_options, named, fetches, targets, fetched,
                                   metadata != nullptr ? metadata : &dropped, pools);
    });
  }

  const CallableOptions& options;
  const GroupSession::Tensors& inputs;
};

bool BringsPools(const GroupSession::ThreadPools& pools) {
  return pools.inter_op_threadpool != nullptr || pools.intra_op_threadpool != nullptr;
}

// Whether feeds, fetches and targets say it all.
bool IsPlain(CallableOptions options) {
  options.clear_feed();
  options.clear_fetch();
  options.clear_target();
  if (options.run_options().ByteSizeLong() == 0) options.clear_run_options();
  return options.ByteSizeLong() == 0;
}

}  // namespace

// What MakeCallable() makes: the group's, or one of each session's own.
struct GroupSession::Callable {
  Callable(const CallableOptions& options, std::string serialised)
      : options(options), serialised(std::move(serialised)) {}

  const CallableOptions options;
  const std::string serialised;
  sg_group_callable* prepared = nullptr;
  // By the sessions' numbers, where the group has not prepared it.
  std::vector<CallableHandle> handles;
  bool released = false;
};

GroupSession::GroupSession(const sg_group_functions* rust, sg_group* group, int32_t number,
                           bool owns_group)
    : rust_(rust),
      group_(group),
      number_(number),
      owns_group_(owns_group),
      by_handle_(new std::atomic<Callable*>[kMostCallables]()) {}

GroupSession::~GroupSession() {
  for (const auto& callable : callables_) {
    if (callable->prepared != nullptr) rust_->delete_callable(callable->prepared);
  }
  if (owns_group_) rust_->remove(group_);
}

absl::Status GroupSession::CheckOpen() const {
  if (!closed_.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("session ", number_, " of the group was closed by who holds it"));
}

template <typename Body>
absl::Status GroupSession::OnSession(bool request, int32_t number, Body body) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  struct BodyVisit final : sg_visit {
    explicit BodyVisit(Body& body) : body(body) {}
    absl::Status Visit(sg_session* session, int32_t number) override {
      return body(session, number);
    }
    Body& body;
  };
  BodyVisit visit(body);
  return Take(request ? rust_->run_on_session(group_, number, &visit)
                      : rust_->with_session(group_, number, &visit));
}

absl::Status GroupSession::AddGraph(GraphDef graph, bool extend) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  if (graph.node_size() == 0 && graph.library().function_size() == 0) return absl::OkStatus();
  auto prepared = std::make_unique<sg_graph>();
  prepared->def = std::move(graph);
  absl::Status fit = PrepareGraph(&prepared->def);
  if (!fit.ok()) return fit;
  return Take(rust_->add_graph(group_, prepared.release(), extend ? 1 : 0));
}

absl::Status GroupSession::Create(const GraphDef& graph) { return AddGraph(graph, false); }
absl::Status GroupSession::Create(GraphDef&& graph) { return AddGraph(std::move(graph), false); }
absl::Status GroupSession::Create(const RunOptions&, const GraphDef& graph) {
  return AddGraph(graph, false);
}
absl::Status GroupSession::Create(const RunOptions&, GraphDef&& graph) {
  return AddGraph(std::move(graph), false);
}
absl::Status GroupSession::Extend(const GraphDef& graph) { return AddGraph(graph, true); }
absl::Status GroupSession::Extend(GraphDef&& graph) { return AddGraph(std::move(graph), true); }
absl::Status GroupSession::Extend(const RunOptions&, const GraphDef& graph) {
  return AddGraph(graph, true);
}
absl::Status GroupSession::Extend(const RunOptions&, GraphDef&& graph) {
  return AddGraph(std::move(graph), true);
}

absl::Status GroupSession::Run(const Feeds& inputs, const Names& outputs, const Names& targets,
                               Tensors* fetched) {
  return Run(RunOptions::default_instance(), inputs, outputs, targets, fetched, nullptr);
}

absl::Status GroupSession::Run(const RunOptions& options, const Feeds& inputs, const Names& outputs,
                               const Names& targets, Tensors* fetched, RunMetadata* metadata) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  if (fetched == nullptr && !outputs.empty()) {
    return absl::InvalidArgumentError("outputs is NULL, but there are output_tensor_names");
  }
  Strs feeds;
  feeds.reserve(inputs.size());
  for (const auto& input : inputs) feeds.push_back(Str(input.first));
  const Strs fetches = ToStrs(outputs);
  const Strs target_names = ToStrs(targets);
  const sg_names names = session_group::Names(feeds, fetches, target_names);
  // The usual ones are not worth a copy.
  std::optional<sg_run_options> own_options;
  if (options.ByteSizeLong() > 0) own_options.emplace(sg_run_options{options});
  NamedCall call(inputs, outputs, targets, fetched, metadata);
  return Take(rust_->run(group_, number_, &names, own_options ? &*own_options : nullptr,
                         metadata != nullptr ? 1 : 0, &call));
}

absl::Status GroupSession::Run(const RunOptions& options, const Feeds& inputs, const Names& outputs,
                               const Names& targets, Tensors* fetched, RunMetadata* metadata,
                               const ThreadPools& pools) {
  if (!BringsPools(pools)) return Run(options, inputs, outputs, targets, fetched, metadata);
  RunMetadata dropped;
  return OnSession(true, number_, [&](sg_session* session, int32_t) {
    return session->Compute([&] {
      return session->session->Run(options, inputs, outputs, targets, fetched,
                                   metadata != nullptr ? metadata : &dropped, pools);
    });
  });
}

absl::Status GroupSession::PRunSetup(const Names& inputs, const Names& outputs,
                                     const Names& targets, std::string* handle) {
  return OnSession(true, number_, [&](sg_session* session, int32_t number) {
    std::string own;
    absl::Status set_up =
        session->Use([&] { return session->session->PRunSetup(inputs, outputs, targets, &own); });
    if (set_up.ok()) *handle = absl::StrCat(number, "/", own);
    return set_up;
  });
}

absl::Status GroupSession::PRun(const std::string& handle, const Feeds& inputs,
                                const Names& outputs, Tensors* fetched) {
  const size_t slash = handle.find('/');
  int32_t number;
  if (slash == std::string::npos || !absl::SimpleAtoi(handle.substr(0, slash), &number) ||
      number < 0 || number >= rust_->session_num(group_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", handle, "\" is not a handle that PRunSetup() of this session gave"));
  }
  const std::string own = handle.substr(slash + 1);
  return OnSession(true, number, [&](sg_session* session, int32_t) {
    return session->Use([&] { return session->session->PRun(own, inputs, outputs, fetched); });
  });
}

absl::Status GroupSession::MakeOnSessions(const CallableOptions& options, Callable* callable) {
  const int32_t sessions = rust_->session_num(group_);
  callable->handles.resize(sessions);
  for (int32_t i = 0; i < sessions; ++i) {
    if (number_ >= 0 && number_ != i) continue;
    absl::Status made = OnSession(false, i, [&](sg_session* session, int32_t) {
      return session->Use(
          [&] { return session->session->MakeCallable(options, &callable->handles[i]); });
    });
    if (made.ok()) continue;
    // Those that were made are of no use any more.
    for (int32_t j = 0; j < i; ++j) {
      if (number_ >= 0) continue;
      OnSession(false, j, [&](sg_session* session, int32_t) {
        return session->Use(
            [&] { return session->session->ReleaseCallable(callable->handles[j]); });
      }).IgnoreError();
    }
    return made;
  }
  return absl::OkStatus();
}

absl::Status GroupSession::MakeCallable(const CallableOptions& options, CallableHandle* handle) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  std::string serialised;
  if (!tensorflow::SerializeToStringDeterministic(options, &serialised)) {
    return absl::InvalidArgumentError(
        "the CallableOptions can't be serialised: is a name no UTF-8?");
  }
  std::lock_guard<std::mutex> lock(mu_);
  for (size_t i = 0; i < callables_.size(); ++i) {
    if (callables_[i]->released && callables_[i]->serialised == serialised) {
      callables_[i]->released = false;
      by_handle_[i].store(callables_[i].get(), std::memory_order_release);
      *handle = i;
      return absl::OkStatus();
    }
  }
  if (callables_.size() == kMostCallables) {
    return absl::ResourceExhaustedError(absl::StrCat("the session has made ", kMostCallables,
                                                     " different callables, and makes no more"));
  }
  auto callable = std::make_unique<Callable>(options, std::move(serialised));
  absl::Status made;
  if (IsPlain(options)) {
    const Strs feeds = ToStrs(options.feed());
    const Strs fetches = ToStrs(options.fetch());
    const Strs targets = ToStrs(options.target());
    const sg_names names = session_group::Names(feeds, fetches, targets);
    made = Reported([&](TF_Status* status) {
      callable->prepared = rust_->make_callable(group_, &names, status);
    });
  } else {
    made = MakeOnSessions(options, callable.get());
  }
  if (!made.ok()) return made;
  by_handle_[callables_.size()].store(callable.get(), std::memory_order_release);
  *handle = callables_.size();
  callables_.push_back(std::move(callable));
  return absl::OkStatus();
}

absl::Status GroupSession::Find(CallableHandle handle, Callable** callable) {
  if (handle >= 0 && handle < static_cast<CallableHandle>(kMostCallables)) {
    *callable = by_handle_[handle].load(std::memory_order_acquire);
    if (*callable != nullptr) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no callable with the handle ", handle, ", or it was released"));
}

absl::Status GroupSession::RunCallable(CallableHandle handle, const Tensors& inputs,
                                       Tensors* fetched, RunMetadata* metadata) {
  return RunCallable(handle, inputs, fetched, metadata, ThreadPools());
}

absl::Status GroupSession::RunCallable(CallableHandle handle, const Tensors& inputs,
                                       Tensors* fetched, RunMetadata* metadata,
                                       const ThreadPools& pools) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  Callable* callable;
  absl::Status found = Find(handle, &callable);
  if (!found.ok()) return found;
  const size_t num_feeds = callable->options.feed_size();
  if (inputs.size() != num_feeds) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", inputs.size(), " feed_tensors, but the callable has ", num_feeds, " feeds"));
  }
  if (fetched == nullptr && callable->options.fetch_size() > 0) {
    return absl::InvalidArgumentError("fetch_tensors is NULL, but the callable has fetches");
  }
  CallableCall call(callable->options, inputs, fetched, metadata);
  if (callable->prepared != nullptr && !BringsPools(pools)) {
    return Take(
        rust_->run_callable(callable->prepared, number_, metadata != nullptr ? 1 : 0, &call));
  }
  RunMetadata dropped;
  return OnSession(true, number_, [&](sg_session* session, int32_t number) {
    if (callable->prepared != nullptr) {
      return call.RunOn(session, RunOptions::default_instance(), pools);
    }
    return session->Compute([&] {
      return session->session->RunCallable(callable->handles[number], inputs, fetched,
                                           metadata != nullptr ? metadata : &dropped, pools);
    });
  });
}

absl::Status GroupSession::ReleaseCallable(CallableHandle handle) {
  Callable* callable;
  std::lock_guard<std::mutex> lock(mu_);
  absl::Status found = Find(handle, &callable);
  if (!found.ok()) return found;
  by_handle_[handle].store(nullptr, std::memory_order_release);
  callable->released = true;
  return absl::OkStatus();
}

absl::Status GroupSession::ListDevices(std::vector<tensorflow::DeviceAttributes>* devices) {
  return OnSession(false, std::max(number_, 0), [&](sg_session* session, int32_t) {
    return session->Use([&] { return session->session->ListDevices(devices); });
  });
}

absl::Status GroupSession::LocalDeviceManager(const tensorflow::DeviceMgr** devices) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  absl::Status untracked = Take(rust_->untrack(group_));
  if (!untracked.ok()) return untracked;
  return OnSession(false, std::max(number_, 0), [&](sg_session* session, int32_t) {
    return session->Use([&] { return session->session->LocalDeviceManager(devices); });
  });
}

absl::Status GroupSession::Close() {
  if (number_ < 0) return Take(rust_->close(group_));
  closed_.store(true, std::memory_order_relaxed);
  return absl::OkStatus();
}

namespace {

// "session_group", alone or before a colon.
bool IsTarget(absl::string_view target) {
  return absl::ConsumePrefix(&target, "session_group") && (target.empty() || target[0] == ':');
}

class Factory final : public tensorflow::SessionFactory {
 public:
  explicit Factory(const sg_group_functions* rust) : rust_(rust) {}

  bool AcceptsOptions(const tensorflow::SessionOptions& options) override {
    return IsTarget(options.target);
  }

  absl::Status NewSession(const tensorflow::SessionOptions& options,
                          tensorflow::Session** session) override {
    *session = nullptr;
    return Caught([&]() -> absl::Status {
      TF_SessionOptions own{options};
      own.options.target.clear();
      sg_group* group = nullptr;
      absl::Status made = Reported(
          [&](TF_Status* status) { group = rust_->make(Str(options.target), &own, status); });
      if (made.ok()) *session = new GroupSession(rust_, group, -1, /*owns_group=*/true);
      return made;
    });
  }

 private:
  const sg_group_functions* const rust_;
};

// Set once.
std::atomic<const sg_group_functions*> registered{nullptr};

}  // namespace
}  // namespace session_group

void sg_register_target(const sg_group_functions* functions, TF_Status* status) {
  session_group::Guard(status, [&] {
    const sg_group_functions* before = nullptr;
    if (!session_group::registered.compare_exchange_strong(before, functions)) {
      return absl::OkStatus();
    }
    // Another copy of this library may be loaded; TensorFlow refuses targets that two factories
    // know.
    tensorflow::SessionOptions options;
    options.target = "session_group";
    tensorflow::SessionFactory* factory;
    if (!tensorflow::SessionFactory::GetFactory(options, &factory).ok()) {
      // TensorFlow keeps it until the process ends.
      tensorflow::SessionFactory::Register("SESSION_GROUP", new session_group::Factory(functions));
    }
    return absl::OkStatus();
  });
}

void* sg_group_session_new(sg_group* group, int32_t session, TF_Status* status) {
  tensorflow::Session* made = nullptr;
  session_group::Guard(status, [&] {
    made = new session_group::GroupSession(session_group::registered.load(), group, session,
                                           /*owns_group=*/false);
    return absl::OkStatus();
  });
  return made;
}

sg_group* sg_group_of_session(void* session) {
  auto* group =
      dynamic_cast<session_group::GroupSession*>(static_cast<tensorflow::Session*>(session));
  // The group of another copy of this library, which the process may have loaded, is none of ours:
  // it may be of another version.
  if (group == nullptr || group->rust() != session_group::registered.load()) return nullptr;
  return group->group();
}
