#include "execute/program_instance.h"

#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/time/clock.h"

using session_group::SerialExecutor;
using tensorflow::Tensor;

absl::Status sg_instance::Make(session_group::Program* program, SerialExecutor::Env env,
                               std::unique_ptr<sg_instance>* instance) {
  auto made = std::make_unique<sg_instance>();
  made->program_ = program;
  made->env_ = std::move(env);
  absl::Status status = SerialExecutor::Make(program, made->env_, &made->usual_);
  if (status.ok()) *instance = std::move(made);
  return status;
}

absl::Status sg_instance::Run(const sg_run& run, absl::Span<const Tensor* const> feeds,
                              absl::Span<Tensor> fetches, sg_run_notes* notes) {
  SerialExecutor::Caller caller{run.stripe, std::nullopt};
  if (run.timeout_ms > 0) caller.deadline = absl::Now() + absl::Milliseconds(run.timeout_ms);
  absl::InlinedVector<const Tensor*, 32> ordered;
  if (run.feeds != nullptr) {
    for (size_t i = 0; i < feeds.size(); ++i) ordered.push_back(feeds[run.feeds[i]]);
    feeds = ordered;
  }
  if (run.fetches == nullptr) return RunUsual(feeds, caller, fetches, notes);
  absl::InlinedVector<Tensor, 8> unique(program_->num_fetches());
  absl::Status ran = RunUsual(feeds, caller, absl::MakeSpan(unique), notes);
  if (!ran.ok()) return ran;
  for (size_t i = 0; i < fetches.size(); ++i) fetches[i] = unique[run.fetches[i]];
  return ran;
}

absl::Status sg_instance::RunUsual(absl::Span<const Tensor* const> feeds,
                                   const SerialExecutor::Caller& caller, absl::Span<Tensor> fetches,
                                   sg_run_notes* notes) {
  if (env_.writes->are_untracked()) return RunUnresolved(feeds, caller, fetches, notes);
  SerialExecutor::Outcome outcome;
  absl::Status ran = usual_->Run(feeds, caller, fetches, &outcome);
  notes->unfused = outcome.was_unfused ? 1 : 0;
  if (!ran.ok() || !outcome.is_unresolved) return ran;
  return RunUnresolved(feeds, caller, fetches, notes);
}

absl::Status sg_instance::RunUnresolved(absl::Span<const Tensor* const> feeds,
                                        const SerialExecutor::Caller& caller,
                                        absl::Span<Tensor> fetches, sg_run_notes* notes) {
  notes->unresolved = 1;
  std::set<std::string> unresolved = usual_->Unresolved();
  // More variables may become unreadable meanwhile, but rarely more than once.
  for (int turn = 0;; ++turn) {
    const bool resolves = turn < 3 && !env_.writes->are_untracked();
    std::shared_ptr<SerialExecutor> executor;
    absl::Status got = GetExecutor(resolves, unresolved, &executor);
    if (!got.ok()) return got;
    SerialExecutor::Outcome outcome;
    absl::Status ran = executor->Run(feeds, caller, fetches, &outcome);
    notes->unfused = outcome.was_unfused ? 1 : 0;
    if (!ran.ok() || !outcome.is_unresolved) return ran;
    unresolved.merge(executor->Unresolved());
  }
}

absl::Status sg_instance::GetExecutor(bool resolves, const std::set<std::string>& unresolved,
                                      std::shared_ptr<SerialExecutor>* executor) {
  std::lock_guard<std::mutex> lock(mu_);
  std::shared_ptr<SerialExecutor>& kept = resolves ? other_ : plain_;
  if (kept == nullptr || (resolves && unresolved_ != unresolved)) {
    SerialExecutor::Env env = env_;
    env.resolve_reads = env.resolve_reads && resolves;
    env.unresolved = unresolved;
    std::unique_ptr<SerialExecutor> made;
    absl::Status status = SerialExecutor::Make(program_, env, &made);
    if (!status.ok()) return status;
    kept = std::move(made);
    if (resolves) unresolved_ = unresolved;
  }
  *executor = kept;
  return absl::OkStatus();
}
