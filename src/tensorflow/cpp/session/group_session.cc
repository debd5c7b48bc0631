#include "session/group_session.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "abi/handles.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "graph/prepare_graph.h"
#include "session/requests.h"
#include "session/rust_calls.h"
#include "tensorflow/core/protobuf/config.pb.h"

struct sg_visit {
  virtual ~sg_visit() = default;
  virtual absl::Status Visit(sg_session* session, int32_t number) = 0;
};

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

bool BringsPools(const GroupSession::ThreadPools& pools) {
  return pools.inter_op_threadpool != nullptr || pools.intra_op_threadpool != nullptr;
}

// Whether nothing but feeds, fetches and targets is set.
bool IsPlain(CallableOptions options) {
  options.clear_feed();
  options.clear_fetch();
  options.clear_target();
  if (options.run_options().ByteSizeLong() == 0) options.clear_run_options();
  return options.ByteSizeLong() == 0;
}

}  // namespace

GroupSession::GroupSession(const sg_group_functions* rust, sg_group* group, int32_t number,
                           bool owns_group)
    : rust_(rust), group_(group), number_(number), owns_group_(owns_group) {}

GroupSession::~GroupSession() {
  for (const auto& callable : callables_.all()) {
    if (callable->prepared != nullptr) rust_->delete_callable(callable->prepared);
  }
  if (owns_group_) rust_->remove(group_);
}

absl::Status GroupSession::CheckOpen() const {
  if (!closed_.load(std::memory_order_relaxed)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("session ", number_,
                   " of the group was closed: make another one with SessionGroup_NewCppPart()"));
}

absl::Status GroupSession::OnSession(bool request, int32_t number, SessionBody body) {
  absl::Status open = CheckOpen();
  if (!open.ok()) return open;
  struct BodyVisit final : sg_visit {
    explicit BodyVisit(SessionBody body) : body(body) {}
    absl::Status Visit(sg_session* session, int32_t number) override {
      return body(session, number);
    }
    SessionBody body;
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
    return absl::InvalidArgumentError(
        "outputs is NULL, but there are output_tensor_names: pass a vector for their tensors");
  }
  Strs feeds;
  feeds.reserve(inputs.size());
  for (const auto& input : inputs) feeds.push_back(Str(input.first));
  const Strs fetches = ToStrs(outputs);
  const Strs target_names = ToStrs(targets);
  const sg_names names = session_group::Names(feeds, fetches, target_names);
  // Default options are not worth a copy.
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
        absl::StrCat("\"", handle,
                     "\" is not a handle that PRunSetup() of this session has returned: set the "
                     "partial run up first"));
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
    // The callables of the other sessions are useless now.
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
  return callables_.Make(
      options,
      [&](Callable* callable) -> absl::Status {
        if (!IsPlain(options)) return MakeOnSessions(options, callable);
        const Strs feeds = ToStrs(options.feed());
        const Strs fetches = ToStrs(options.fetch());
        const Strs targets = ToStrs(options.target());
        const sg_names names = session_group::Names(feeds, fetches, targets);
        return Reported([&](TF_Status* status) {
          callable->prepared = rust_->make_callable(group_, &names, status);
        });
      },
      handle);
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
  absl::Status found = callables_.Find(handle, &callable);
  if (!found.ok()) return found;
  const size_t num_feeds = callable->options.feed_size();
  if (inputs.size() != num_feeds) {
    return absl::InvalidArgumentError(absl::StrCat(
        "there are ", inputs.size(), " feed_tensors, but the callable has ", num_feeds, " feeds"));
  }
  if (fetched == nullptr && callable->options.fetch_size() > 0) {
    return absl::InvalidArgumentError(
        "fetch_tensors is NULL, but the callable has fetches: pass a vector for their tensors");
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
  return callables_.Release(handle);
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

}  // namespace session_group
