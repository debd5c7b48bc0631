#include "execute/serial_executor.h"

#include <time.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tensorflow/core/common_runtime/rendezvous_mgr.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/public/session_options.h"
#include "tsl/platform/denormal.h"

namespace session_group {

using tensorflow::Tensor;

namespace {

// A look at the clock takes as long as some kernels, so it is not taken before each step: after so
// many, and after each tick of the system's coarse clock, which costs little to look at.
constexpr int kStepsBetweenLooks = 8;

// How long a request measures kernels of one operation, unless a single run takes longer.
constexpr int64_t kMostMeasuring = 2000000;

int64_t CoarseNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

}  // namespace

// What a run needs. Made once, used by one run at a time.
struct SerialExecutor::Frame {
  explicit Frame(tensorflow::CancellationManager* closing) : cancellation(closing) {}

  std::vector<Tensor> feeds;
  std::vector<Tensor> variables;
  uint64_t variables_as_of = 0;
  std::vector<Tensor> slots;
  // Second references to slots with several users, which keep kernels from writing in place.
  std::vector<Tensor> guards;
  // Those of all steps, pointing to the tensors of this frame and to constants.
  std::vector<tensorflow::TensorValue> inputs;
  std::vector<uint8_t> literals;  // which of them hold
  std::optional<absl::Time> deadline;
  int until_look = 0;     // steps until the clock is looked at
  int64_t last_tick = 0;  // of the coarse clock
  tensorflow::CancellationManager cancellation;
  tensorflow::OpKernelContext::Params params;
};

absl::Status SerialExecutor::Make(Program* program, const Env& env,
                                  std::unique_ptr<SerialExecutor>* executor) {
  std::unique_ptr<SerialExecutor> made(new SerialExecutor(program, env));
  Layout::Options options;
  options.library = made->library_;
  options.resolve_reads = env.resolve_reads;
  options.unresolved = &made->env_.unresolved;
  options.fuse_lookups = env.fuse_lookups;
  options.choose_kernels = env.choose_kernels;
  absl::Status status = made->layout_.Make(*program, options, &made->reads_);
  if (!status.ok()) return status;
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
          // As DirectSession's, for functions that run by themselves.
          tensorflow::Rendezvous::Factory(
              [](int64_t, const tensorflow::DeviceMgr* device_mgr,
                 tsl::core::RefCountPtr<tensorflow::Rendezvous>* rendezvous) {
                rendezvous->reset(new tensorflow::IntraProcessRendezvous(device_mgr));
                return absl::OkStatus();
              }))),
      library_(functions_->GetFLR(env.device->name())),
      host_(env.device->GetAllocator(tensorflow::AllocatorAttributes())),
      reads_(env.device->resource_manager(), env.writes) {}

SerialExecutor::~SerialExecutor() {
  env_.writes->RemoveReader(this);
  DropFrames();
}

void SerialExecutor::Written() {
  reads_.Drop();
  DropFrames();
}

void SerialExecutor::DropFrames() {
  for (auto& spare : spare_) delete spare.exchange(nullptr, std::memory_order_acquire);
}

Tensor* SerialExecutor::Find(Value value, Frame* frame) {
  switch (value.kind) {
    case Value::kFeed:
      return &frame->feeds[value.index];
    case Value::kConstant:
      return &layout_.constants[value.index];
    case Value::kVariable:
      return &frame->variables[value.index];
    case Value::kSlot:
      return &frame->slots[value.index];
    case Value::kNone:
      break;
  }
  return nullptr;  // Refused by Layout.
}

std::unique_ptr<SerialExecutor::Frame> SerialExecutor::TakeFrame() {
  for (auto& spare : spare_) {
    if (spare.load(std::memory_order_relaxed) == nullptr) continue;
    if (Frame* frame = spare.exchange(nullptr, std::memory_order_acquire)) {
      return std::unique_ptr<Frame>(frame);
    }
  }
  auto frame = std::make_unique<Frame>(env_.closing);
  frame->feeds.resize(layout_.feed_types.size());
  frame->variables.resize(reads_.size());
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

void SerialExecutor::GiveBack(std::unique_ptr<Frame> frame) {
  const uint64_t as_of = frame->variables_as_of;
  // Values that are out of date are not to stay in memory.
  const auto is_stale = [&] { return !reads_.empty() && !reads_.IsUpToDate(as_of); };
  if (is_stale()) return;
  for (auto& spare : spare_) {
    Frame* expected = nullptr;
    if (!spare.compare_exchange_strong(expected, frame.get(), std::memory_order_seq_cst,
                                       std::memory_order_relaxed)) {
      continue;
    }
    frame.release();
    // A write since then may have looked for frames before this one was there.
    if (is_stale()) delete spare.exchange(nullptr, std::memory_order_acquire);
    return;
  }
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

absl::Status SerialExecutor::Run(absl::Span<const Tensor* const> feeds,
                                 std::optional<absl::Time> deadline, absl::Span<Tensor> fetches,
                                 Outcome* outcome) {
  *outcome = Outcome();
  absl::Status status = CheckFeeds(feeds);
  if (!status.ok()) return status;

  outcome->is_unresolved = true;
  if (!reads_.empty() && reads_.HasFailed()) return absl::OkStatus();
  std::unique_ptr<Frame> frame = TakeFrame();
  if (!reads_.empty() && !reads_.Refresh(&frame->variables_as_of, &frame->variables)) {
    return absl::OkStatus();
  }
  outcome->is_unresolved = false;
  // A reference of our own keeps kernels from writing into the caller's tensors.
  for (size_t i = 0; i < feeds.size(); ++i) frame->feeds[i] = *feeds[i];

  status = RunAll(frame.get(), deadline, outcome);
  if (status.ok() && !layout_.conditions.empty()) status = CheckFetches(*frame);
  // A frame that has seen a failure is not used again: there may be anything in it.
  if (!status.ok()) return status;

  for (size_t i = 0; i < fetches.size(); ++i) {
    fetches[i] = *Find(layout_.fetches[i], frame.get());
  }
  for (const Value& fetch : layout_.fetches) {
    if (fetch.kind != Value::kSlot) continue;
    frame->slots[fetch.index] = Tensor();
    frame->guards[fetch.index] = Tensor();
  }
  for (Tensor& feed : frame->feeds) feed = Tensor();
  GiveBack(std::move(frame));
  return status;
}

absl::Status SerialExecutor::RunAll(Frame* frame, std::optional<absl::Time> deadline,
                                    Outcome* outcome) {
  // As in TensorFlow's own threads.
  tsl::port::ScopedFlushDenormal flush;

  // Function calls, and what lives as long as a request, need what is unique to a run.
  std::optional<tensorflow::PrivateIntraProcessRendezvous> rendezvous;
  std::optional<tensorflow::ScopedStepContainer> container;
  auto& params = frame->params;
  params.deadline = deadline;
  frame->deadline = deadline;
  frame->until_look = 0;
  if (layout_.needs_step) {
    // Sessions number their steps from 0 on.
    static std::atomic<int64_t> next_step{int64_t{1} << 62};
    params.step_id = next_step.fetch_add(1, std::memory_order_relaxed);
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

absl::Status SerialExecutor::CheckTime(const Step& step, Frame* frame) const {
  const int64_t tick = CoarseNanoseconds();
  if (--frame->until_look > 0 && tick == frame->last_tick) return absl::OkStatus();
  frame->until_look = kStepsBetweenLooks;
  frame->last_tick = tick;
  if (absl::Now() < *frame->deadline) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("the request's timeout passed before step ",
                                                  &step - layout_.steps.data(), " of the graph's ",
                                                  layout_.steps.size(), " steps"));
}

absl::Status SerialExecutor::RunSteps(int begin, int end, Frame* frame, Outcome* outcome) {
  for (int i = begin; i < end;) {
    const Step& step = layout_.steps[i];
    i = step.next;
    if (frame->cancellation.IsCancelled()) {
      return absl::CancelledError("the session group was closed while the request ran");
    }
    if (frame->deadline.has_value()) {
      absl::Status in_time = CheckTime(step, frame);
      if (!in_time.ok()) return in_time;
    }
    Unguard(step, frame);
    if (step.condition == Layout::kAlways || Holds(step.condition, *frame)) {
      absl::Status ran = RunStep(step, frame, outcome);
      if (!ran.ok()) return ran;
      Guard(step, frame);
    }
    Forget(step, frame);
  }
  return absl::OkStatus();
}

absl::Status SerialExecutor::RunStep(const Step& step, Frame* frame, Outcome* outcome) {
  switch (step.kind) {
    case Step::kKernel:
      return step.other == nullptr ? RunKernel(step, step.kernel, frame) : RunChosen(step, frame);
    case Step::kLookups:
      return RunLookups(step, frame, outcome);
    case Step::kBranch:
      return RunBranch(step, frame);
    case Step::kMerge:
      return RunMerge(step, frame);
    case Step::kLoop:
      return RunLoop(step, frame, outcome);
    case Step::kTest:
    case Step::kAdvance:
      break;
  }
  return absl::InternalError("a part of a loop outside of it");
}

absl::Status SerialExecutor::RunChosen(const Step& step, Frame* frame) {
  const int size = KernelChoice::Size(*frame->inputs[step.first_input].tensor);
  switch (step.choice->decision(size)) {
    case KernelChoice::kStock:
      return RunKernel(step, step.kernel, frame);
    case KernelChoice::kOther:
      return RunKernel(step, step.other, frame);
    case KernelChoice::kOpen:
      break;
  }
  if (!step.choice->BeginMeasuring(size)) return RunKernel(step, step.kernel, frame);
  return Measure(step, size, frame);
}

// Runs both, and answers with what a stock session would.
absl::Status SerialExecutor::Measure(const Step& step, int size, Frame* frame) {
  // Neither is to write into what the other reads.
  std::vector<Tensor> held;
  for (int i = 0; i < step.num_inputs; ++i) {
    held.push_back(*frame->inputs[step.first_input + i].tensor);
  }
  const auto timed = [&](tensorflow::OpKernel* kernel, int64_t* ns) {
    const int64_t begun = absl::GetCurrentTimeNanos();
    absl::Status ran = RunKernel(step, kernel, frame);
    *ns = absl::GetCurrentTimeNanos() - begun;
    return ran;
  };
  // Also where a kernel throws.
  const auto ended = absl::MakeCleanup([&] { step.choice->EndMeasuring(size); });
  absl::Status ran;
  const int64_t end = absl::GetCurrentTimeNanos() + kMostMeasuring;
  do {
    int64_t stock_ns;
    int64_t other_ns;
    if (!timed(step.other, &other_ns).ok()) other_ns = INT64_MAX;
    ran = timed(step.kernel, &stock_ns);
    // What fails says nothing about those that don't.
    if (!ran.ok()) break;
    step.choice->Measured(size, stock_ns, other_ns);
  } while (step.choice->decision(size) == KernelChoice::kOpen && absl::GetCurrentTimeNanos() < end);
  step.choice->EndMeasuring(size);
  return ran;
}

absl::Status SerialExecutor::RunKernel(const Step& step, tensorflow::OpKernel* kernel,
                                       Frame* frame) {
  auto& params = frame->params;
  const size_t num_inputs = step.num_inputs;
  params.op_kernel = kernel;
  params.inputs = {frame->inputs.data() + step.first_input, num_inputs};
  params.input_alloc_attrs = {layout_.input_attrs.data() + step.first_input, num_inputs};
  params.output_attr_array = layout_.output_attrs.data() + step.first_output;
  tensorflow::OpKernelContext context(&params, step.num_outputs);
  if (step.async == nullptr) {
    kernel->Compute(&context);
  } else {
    absl::Notification done;
    env_.device->ComputeAsync(step.async, &context, [&done] { done.Notify(); });
    done.WaitForNotification();
  }
  if (!context.status().ok()) {
    return tensorflow::AttachDef(context.status(), kernel->def());
  }
  for (int i = 0; i < step.num_outputs; ++i) {
    const tensorflow::TensorValue output = context.release_output(i);
    if (output.tensor == nullptr) {
      return tensorflow::AttachDef(
          absl::InternalError(absl::StrCat("output ", i, " was not computed")), kernel->def());
    }
    frame->slots[step.first_output + i] = std::move(*output.tensor);
    delete output.tensor;
  }
  return absl::OkStatus();
}

absl::Status SerialExecutor::RunLookups(const Step& step, Frame* frame, Outcome* outcome) {
  const Layout::Fused& fused = layout_.lookups[step.number];
  const Lookups::Outcome found = fused.lookups.Run(frame->inputs.data() + step.first_input, host_,
                                                   frame->slots.data() + step.first_output);
  if (found == Lookups::Outcome::kDone) return absl::OkStatus();
  if (found == Lookups::Outcome::kNoMemory) {
    return absl::ResourceExhaustedError("out of memory for the rows of a lookup");
  }
  // The kernels know what to do, or what to say.
  outcome->was_unfused = true;
  for (const Step& gather : fused.kernels) {
    absl::Status ran = RunKernel(gather, gather.kernel, frame);
    if (!ran.ok()) return ran;
  }
  for (const int slot : fused.temporaries) frame->slots[slot] = Tensor();
  return absl::OkStatus();
}

absl::Status SerialExecutor::RunBranch(const Step& step, Frame* frame) {
  const Tensor& predicate = *frame->inputs[step.first_input].tensor;
  if (predicate.dims() != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "The second input must be a scalar, but it has shape ", predicate.shape().DebugString()));
  }
  const int last = step.num_outputs - 1;
  int side = last;
  if (predicate.dtype() == tensorflow::DT_BOOL) {
    side = predicate.scalar<bool>()() ? 1 : 0;
  } else if (predicate.scalar<int32_t>()() >= 0) {
    side = std::min(predicate.scalar<int32_t>()(), last);
  }
  for (int i = 0; i <= last; ++i) frame->literals[step.number + i] = i == side;
  return absl::OkStatus();
}

absl::Status SerialExecutor::RunMerge(const Step& step, Frame* frame) {
  const Layout::Merge& merge = layout_.merges[step.number];
  for (int i = 0; i < step.num_inputs; ++i) {
    if (merge.conditions[i] != Layout::kAlways && !Holds(merge.conditions[i], *frame)) continue;
    frame->slots[step.first_output] = *frame->inputs[step.first_input + i].tensor;
    if (merge.gives_side) {
      Tensor side(tensorflow::DT_INT32, tensorflow::TensorShape({}));
      side.scalar<int32_t>()() = i;
      frame->slots[step.first_output + 1] = std::move(side);
    }
    if (merge.literal >= 0) frame->literals[merge.literal] = 1;
    return absl::OkStatus();
  }
  if (merge.literal >= 0) return absl::OkStatus();  // Who needs it is not run.
  return absl::InternalError("no branch gives a value, although one was run");
}

absl::Status SerialExecutor::RunLoop(const Step& step, Frame* frame, Outcome* outcome) {
  const Layout::Loop& loop = layout_.loops[step.number];
  for (size_t v = 0; v < loop.variables.size(); ++v) {
    const Layout::Variable& variable = loop.variables[v];
    Tensor* first = frame->inputs[step.first_input + v].tensor;
    frame->slots[variable.slot] = variable.is_moved ? std::move(*first) : *first;
  }
  const Step& test = layout_.steps[loop.test];
  const Step& advance = layout_.steps[loop.advance];
  const int first_step = static_cast<int>(&step - layout_.steps.data()) + 1;
  for (;;) {
    std::fill_n(frame->literals.begin() + loop.first_literal, loop.num_literals, 0);
    for (const Layout::Variable& variable : loop.variables) {
      if (variable.is_guarded) frame->guards[variable.slot] = frame->slots[variable.slot];
    }
    absl::Status ran = RunSteps(first_step, loop.test, frame, outcome);
    if (!ran.ok()) return ran;
    const Tensor& goes_on = *frame->inputs[test.first_input].tensor;
    if (goes_on.dtype() != tensorflow::DT_BOOL || goes_on.dims() != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("a loop's test must be a scalar bool, but is ", goes_on.DebugString()));
    }
    const bool is_over = !goes_on.scalar<bool>()();
    Unguard(test, frame);
    Forget(test, frame);
    if (is_over) break;
    ran = RunSteps(loop.test + 1, loop.advance, frame, outcome);
    if (!ran.ok()) return ran;
    Advance(advance, frame);
  }
  for (const Layout::Variable& variable : loop.variables) {
    Tensor last = std::move(frame->slots[variable.slot]);
    frame->guards[variable.slot] = Tensor();
    for (const int exit : variable.exits) frame->slots[exit] = last;
  }
  return absl::OkStatus();
}

void SerialExecutor::Advance(const Step& step, Frame* frame) {
  const std::vector<Layout::Variable>& variables = layout_.loops[step.number].variables;
  // All at a time: a variable may become what another one was.
  for (size_t v = 0; v < variables.size(); ++v) {
    frame->slots[variables[v].next] = *frame->inputs[step.first_input + v].tensor;
  }
  Unguard(step, frame);
  Forget(step, frame);
  for (const Layout::Variable& variable : variables) {
    frame->slots[variable.slot] = std::move(frame->slots[variable.next]);
  }
}

bool SerialExecutor::Holds(int condition, const Frame& frame) const {
  for (const int literal : layout_.conditions[condition]) {
    if (frame.literals[literal] == 0) return false;
  }
  return true;
}

void SerialExecutor::Guard(const Step& step, Frame* frame) const {
  for (int slot : step.guard) frame->guards[slot] = frame->slots[slot];
}

void SerialExecutor::Unguard(const Step& step, Frame* frame) const {
  for (int slot : step.unguard) frame->guards[slot] = Tensor();
}

void SerialExecutor::Forget(const Step& step, Frame* frame) const {
  for (int slot : step.dead) frame->slots[slot] = Tensor();
  for (int slot : step.dead_guards) frame->guards[slot] = Tensor();
}

}  // namespace session_group
