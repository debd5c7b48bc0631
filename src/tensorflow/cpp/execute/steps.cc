// Runs steps in order: the part of SerialExecutor for kernels and lookups.
#include <time.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "execute/frame.h"
#include "execute/serial_executor.h"
#include "tensorflow/core/framework/node_def_util.h"

namespace session_group {

using tensorflow::Tensor;

namespace {

// Reading the clock takes as long as some kernels, so it is not read before each step, but after
// this many steps, and after each tick of the system's coarse clock, which is cheap to read.
constexpr int kStepsBetweenLooks = 8;

// How many nanoseconds a request spends on measuring kernels of one operation. A single run may
// take longer.
constexpr int64_t kMostMeasuring = 2000000;

int64_t CoarseNanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// What the kernel of LookupTableFindV2 does. Its inputs are a handle, which is not read, keys and a
// default.
absl::Status FindIn(tensorflow::lookup::LookupInterface* table,
                    tensorflow::OpKernelContext* context) {
  absl::Status status = context->MatchSignature(
      {context->input_dtype(0), table->key_dtype(), table->value_dtype()}, {table->value_dtype()});
  if (!status.ok()) return status;
  const Tensor& keys = context->input(1);
  const Tensor& missing = context->input(2);
  status = table->CheckFindArguments(keys, missing);
  if (!status.ok()) return status;
  tensorflow::TensorShape shape = keys.shape();
  shape.RemoveLastDims(table->key_shape().dims());
  shape.AppendShape(table->value_shape());
  Tensor* values;
  status = context->allocate_output(0, shape, &values);
  return status.ok() ? table->Find(context, keys, values, missing) : status;
}

// What the kernel of LookupTableSizeV2 does.
absl::Status SizeOf(const tensorflow::lookup::LookupInterface& table,
                    tensorflow::OpKernelContext* context) {
  Tensor* size;
  absl::Status status = context->allocate_output(0, tensorflow::TensorShape({}), &size);
  if (status.ok()) size->scalar<int64_t>()() = static_cast<int64_t>(table.size());
  return status;
}

}  // namespace

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
      if (step.small != nullptr &&
          step.small->Run(frame->inputs.data() + step.first_input, step.num_inputs, host_,
                          &frame->slots[step.first_output])) {
        return absl::OkStatus();
      }
      return step.other == nullptr ? RunKernel(step, step.kernel, frame) : RunChosen(step, frame);
    case Step::kLookups:
      return RunLookups(step, frame, outcome);
    case Step::kFind:
    case Step::kSize:
      return RunTable(step, frame);
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
  return absl::InternalError("a step of a loop runs outside of its loop");
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

// Runs both kernels. The result is that of the kernel that a stock session would use.
absl::Status SerialExecutor::Measure(const Step& step, int size, Frame* frame) {
  // Extra references keep each kernel from writing into the inputs of the other.
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
  // Even if a kernel throws.
  const auto ended = absl::MakeCleanup([&] { step.choice->EndMeasuring(size); });
  absl::Status ran;
  const int64_t end = absl::GetCurrentTimeNanos() + kMostMeasuring;
  do {
    int64_t stock_ns;
    int64_t other_ns;
    if (!timed(step.other, &other_ns).ok()) other_ns = INT64_MAX;
    ran = timed(step.kernel, &stock_ns);
    // The time of a failed run says nothing about other runs.
    if (!ran.ok()) break;
    step.choice->Measured(size, stock_ns, other_ns);
  } while (step.choice->decision(size) == KernelChoice::kOpen && absl::GetCurrentTimeNanos() < end);
  step.choice->EndMeasuring(size);
  return ran;
}

absl::Status SerialExecutor::RunKernel(const Step& step, tensorflow::OpKernel* kernel,
                                       Frame* frame) {
  SetKernel(step, kernel, frame);
  tensorflow::OpKernelContext context(&frame->params, step.num_outputs);
  if (step.async == nullptr) {
    kernel->Compute(&context);
  } else {
    absl::Notification done;
    env_.device->ComputeAsync(step.async, &context, [&done] { done.Notify(); });
    done.WaitForNotification();
  }
  return TakeOutputs(step, *kernel, &context, frame);
}

// As RunKernel(), with a table that was found before.
absl::Status SerialExecutor::RunTable(const Step& step, Frame* frame) {
  SetKernel(step, step.kernel, frame);
  tensorflow::OpKernelContext context(&frame->params, step.num_outputs);
  tensorflow::lookup::LookupInterface* table = frame->reads.tables[step.number].get();
  context.SetStatus(step.kind == Step::kFind ? FindIn(table, &context) : SizeOf(*table, &context));
  return TakeOutputs(step, *step.kernel, &context, frame);
}

void SerialExecutor::SetKernel(const Step& step, tensorflow::OpKernel* kernel, Frame* frame) const {
  auto& params = frame->params;
  const size_t num_inputs = step.num_inputs;
  params.op_kernel = kernel;
  params.inputs = {frame->inputs.data() + step.first_input, num_inputs};
  params.input_alloc_attrs = {layout_.input_attrs.data() + step.first_input, num_inputs};
  params.output_attr_array = layout_.output_attrs.data() + step.first_output;
}

absl::Status SerialExecutor::TakeOutputs(const Step& step, const tensorflow::OpKernel& kernel,
                                         tensorflow::OpKernelContext* context, Frame* frame) {
  if (!context->status().ok()) {
    return tensorflow::AttachDef(context->status(), kernel.def());
  }
  for (int i = 0; i < step.num_outputs; ++i) {
    const tensorflow::TensorValue output = context->release_output(i);
    if (output.tensor == nullptr) {
      return tensorflow::AttachDef(
          absl::InternalError(absl::StrCat("output ", i, " was not computed")), kernel.def());
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
    return absl::ResourceExhaustedError("out of memory for the rows of embedding lookups");
  }
  // The kernels can do it, or report the error.
  outcome->was_unfused = true;
  for (const Step& gather : fused.kernels) {
    absl::Status ran = RunKernel(gather, gather.kernel, frame);
    if (!ran.ok()) return ran;
  }
  for (const int slot : fused.temporaries) frame->slots[slot] = Tensor();
  return absl::OkStatus();
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
