#include "execute/serial_executor.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "execute/make_layout.h"
#include "tensorflow/core/common_runtime/rendezvous_mgr.h"
#include "tensorflow/core/public/session_options.h"
#include "tsl/platform/denormal.h"

namespace session_group {

using tensorflow::Tensor;

absl::Status SerialExecutor::Make(Program* program, const Env& env,
                                  std::unique_ptr<SerialExecutor>* executor) {
  std::unique_ptr<SerialExecutor> made(new SerialExecutor(program, env));
  Layout::Options options;
  options.library = made->library_;
  options.resolve_reads = env.resolve_reads;
  options.unresolved = &made->env_.unresolved;
  options.fuse_lookups = env.fuse_lookups;
  options.choose_kernels = env.choose_kernels;
  absl::Status status = MakeLayout(program, options, &made->reads_, &made->layout_);
  if (!status.ok()) return status;
  made->frames_.set_frame_bytes(made->FrameBytes());
  if (!made->reads_.empty()) env.writes->AddReader(made.get());
  *executor = std::move(made);
  return absl::OkStatus();
}

SerialExecutor::SerialExecutor(const Program* program, const Env& env)
    : program_(program),
      env_(env),
      functions_(std::make_unique<tensorflow::ProcessFunctionLibraryRuntime>(
          env.device_mgr, env.options->env, &env.options->config,
          program->graph()->versions().producer(), &program->graph()->flib_def(),
          env.options->config.graph_options().optimizer_options(), /*thread_pool=*/nullptr,
          /*parent=*/nullptr, /*session_metadata=*/nullptr,
          // Like DirectSession's, for functions that run on their own.
          tensorflow::Rendezvous::Factory(
              [](int64_t, const tensorflow::DeviceMgr* device_mgr,
                 tsl::core::RefCountPtr<tensorflow::Rendezvous>* rendezvous) {
                rendezvous->reset(new tensorflow::IntraProcessRendezvous(device_mgr));
                return absl::OkStatus();
              }))),
      library_(functions_->GetFLR(env.device->name())),
      host_(env.device->GetAllocator(tensorflow::AllocatorAttributes())),
      reads_(env.device->resource_manager(), env.writes),
      frames_(env.stripes, env.frames) {}

SerialExecutor::~SerialExecutor() { env_.writes->RemoveReader(this); }

void SerialExecutor::Written() {
  reads_.Drop();
  frames_.Drop();
}

Tensor* SerialExecutor::Find(Value value, Frame* frame) {
  switch (value.kind) {
    case Value::kFeed:
      return &frame->feeds[value.index];
    case Value::kConstant:
      return &layout_.constants[value.index];
    case Value::kVariable:
      return &frame->reads.variables[value.index];
    case Value::kSlot:
      return &frame->slots[value.index];
    case Value::kNone:
      break;
  }
  return nullptr;  // Layout refuses it.
}

int64_t SerialExecutor::FrameBytes() const {
  // A slot has its guard, and a variable a view.
  const size_t tensors =
      layout_.feed_types.size() + 2 * layout_.output_attrs.size() + 3 * reads_.num_variables();
  return static_cast<int64_t>(sizeof(Frame) + tensors * sizeof(Tensor) +
                              layout_.inputs.size() * sizeof(tensorflow::TensorValue));
}

std::unique_ptr<Frame> SerialExecutor::MakeFrame() {
  auto frame = std::make_unique<Frame>(env_.closing);
  frame->feeds.resize(layout_.feed_types.size());
  frame->reads.variables.resize(reads_.num_variables());
  frame->reads.tables.resize(reads_.num_tables());
  frame->slots.resize(layout_.output_attrs.size());
  frame->guards.resize(layout_.output_attrs.size());
  frame->literals.resize(layout_.num_literals);
  for (const Value& input : layout_.inputs) frame->inputs.emplace_back(Find(input, frame.get()));

  static auto* const inline_runner = new std::function<void(std::function<void()>)>(
      [](const std::function<void()>& closure) { closure(); });
  auto& params = frame->params;
  params.device = env_.device;
  params.resource_manager = env_.device->resource_manager();
  params.session_config = &env_.options->config;
  params.function_library = library_;
  params.cancellation_manager = &frame->cancellation;
  params.runner = inline_runner;
  params.run_all_kernels_inline = true;
  params.frame_iter = tensorflow::FrameAndIter(0, 0);
  return frame;
}

void SerialExecutor::GiveBack(FramePool::Hold* hold) {
  const uint64_t as_of = hold->frame->reads.as_of;
  // Outdated values must not stay in memory.
  const auto is_stale = [&] { return !reads_.empty() && !reads_.IsUpToDate(as_of); };
  if (is_stale()) return;
  hold->Keep();
  // A write may have dropped the unused frames before this one was there.
  if (is_stale()) frames_.Drop();
}

absl::Status SerialExecutor::CheckFeeds(absl::Span<const Tensor* const> feeds) const {
  const auto& types = layout_.feed_types;
  if (feeds.size() != types.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", feeds.size(), " tensors to feed, not ", types.size()));
  }
  for (size_t i = 0; i < feeds.size(); ++i) {
    if (feeds[i]->dtype() != types[i] && types[i] != tensorflow::DT_INVALID) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tensor to feed to ", program_->feeds()[i], " has type ",
                       tensorflow::DataTypeString(feeds[i]->dtype()), ", but the graph takes ",
                       tensorflow::DataTypeString(types[i])));
    }
  }
  return absl::OkStatus();
}

absl::Status SerialExecutor::CheckFetches(const Frame& frame) const {
  for (size_t i = 0; i < layout_.fetches.size(); ++i) {
    const int condition = layout_.fetch_conditions[i];
    if (condition != Layout::kAlways && !Holds(condition, frame)) {
      return absl::InvalidArgumentError(
          absl::StrCat("Retval[", i, "] does not have value: it is in a branch that was not run"));
    }
  }
  return absl::OkStatus();
}

absl::Status SerialExecutor::Run(absl::Span<const Tensor* const> feeds, const Caller& caller,
                                 absl::Span<Tensor> fetches, Outcome* outcome) {
  *outcome = Outcome();
  absl::Status status = CheckFeeds(feeds);
  if (!status.ok()) return status;

  outcome->is_unresolved = true;
  if (!reads_.empty() && reads_.HasFailed()) return absl::OkStatus();
  FramePool::Hold hold(&frames_, caller.stripe);
  if (hold.frame == nullptr) hold.frame = MakeFrame();
  Frame* const frame = hold.frame.get();
  if (!reads_.empty() && !reads_.Refresh(&frame->reads)) return absl::OkStatus();
  outcome->is_unresolved = false;
  // A reference of our own keeps kernels from writing into the caller's tensors.
  for (size_t i = 0; i < feeds.size(); ++i) frame->feeds[i] = *feeds[i];

  status = RunAll(frame, caller.deadline, outcome);
  if (status.ok() && !layout_.conditions.empty()) status = CheckFetches(*frame);
  // A frame that has seen a failure is not used again: there may be anything in it.
  if (!status.ok()) return status;

  for (size_t i = 0; i < fetches.size(); ++i) {
    fetches[i] = *Find(layout_.fetches[i], frame);
  }
  for (const Value& fetch : layout_.fetches) {
    if (fetch.kind != Value::kSlot) continue;
    frame->slots[fetch.index] = Tensor();
    frame->guards[fetch.index] = Tensor();
  }
  for (Tensor& feed : frame->feeds) feed = Tensor();
  GiveBack(&hold);
  return status;
}

absl::Status SerialExecutor::RunAll(Frame* frame, std::optional<absl::Time> deadline,
                                    Outcome* outcome) {
  // As in TensorFlow's own threads.
  tsl::port::ScopedFlushDenormal flush;

  // Function calls and resources of a step need a step id of their own.
  std::optional<tensorflow::PrivateIntraProcessRendezvous> rendezvous;
  std::optional<tensorflow::ScopedStepContainer> container;
  auto& params = frame->params;
  params.deadline = deadline;
  frame->deadline = deadline;
  frame->until_look = 0;
  if (layout_.needs_step) {
    params.step_id = frame->NextStep();
    rendezvous.emplace(env_.device_mgr);
    params.rendezvous = &*rendezvous;
    container.emplace(params.step_id, [this](const std::string& name) {
      env_.device->resource_manager()->Cleanup(name).IgnoreError();
    });
    params.step_container = &*container;
  }
  std::fill(frame->literals.begin(), frame->literals.end(), 0);
  return RunSteps(0, static_cast<int>(layout_.steps.size()), frame, outcome);
}

}  // namespace session_group
