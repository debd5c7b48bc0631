// Runs branches and loops: the part of SerialExecutor for their steps.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "execute/frame.h"
#include "execute/serial_executor.h"

namespace session_group {

using tensorflow::Tensor;

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
  if (merge.literal >= 0) return absl::OkStatus();  // Its users don't run.
  return absl::InternalError("no branch has a value, although one was run");
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
  // All variables change at once, because one may take the previous value of another.
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

}  // namespace session_group
