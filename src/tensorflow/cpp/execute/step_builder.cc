#include "execute/step_builder.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "execute/partitioned_gather.h"
#include "tensorflow/core/framework/node_def_util.h"

namespace session_group {

using tensorflow::Node;
using tensorflow::OpKernel;

StepBuilder::StepBuilder(Program* program, const Layout::Options& options, const KnownValues& known,
                         const LookupFusion& fusion, const StepOrder& order, Layout* layout,
                         NodeValues* values)
    : program_(program),
      flow_(program->control_flow()),
      options_(options),
      known_(known),
      fusion_(fusion),
      order_(order),
      l_(layout),
      values_(values),
      kernels_(program, options.library, known, layout, values) {}

absl::Status StepBuilder::AddRange(int loop) {
  std::vector<StepOrder::Item> items;
  absl::Status ordered = order_.Find(loop, &items);
  if (!ordered.ok()) return ordered;
  for (const StepOrder::Item& item : items) {
    absl::Status added;
    switch (item.kind) {
      case StepOrder::Item::kNode:
        added = Add(*item.nodes[0]);
        break;
      case StepOrder::Item::kLoop:
        added = AddLoop(flow_.loop(*item.nodes[0]));
        break;
      case StepOrder::Item::kLookups:
        added = AddLookups(item.nodes);
        break;
      case StepOrder::Item::kTest:
        added = AddTest(loop);
        break;
    }
    if (added.ok()) continue;
    const bool is_unit = item.kind == StepOrder::Item::kNode || item.kind == StepOrder::Item::kLoop;
    return is_unit ? tensorflow::AttachDef(added, item.nodes[0]->def()) : added;
  }
  return absl::OkStatus();
}

absl::Status StepBuilder::Add(const Node& node) {
  if (node.IsRetval()) return AddFetch(node);
  if (node.IsSwitch()) return flow_.IsLoopSwitch(node) ? absl::OkStatus() : AddBranch(node);
  if (node.IsMerge()) {
    return values_->VariableOf(node) != nullptr ? absl::OkStatus() : AddMerge(node);
  }
  if (!node.IsOp() || node.type_string() == "NoOp" || node.IsIdentity() || node.IsEnter() ||
      node.IsExit() || node.IsNextIteration() || node.IsLoopCond() ||
      node.type_string() == "ControlTrigger" || known_.IsNotNeeded(node) || values_->Has(node)) {
    return absl::OkStatus();
  }
  OpKernel* kernel;
  std::vector<Value> inputs;
  absl::Status status = kernels_.Make(node, &kernel, &inputs);
  return status.ok() ? AddKernel(node, kernel, inputs) : status;
}

absl::Status StepBuilder::AddFetch(const Node& node) {
  int index;
  absl::Status status = ArgumentIndex(node, l_->fetches.size(), &index);
  if (!status.ok()) return status;
  l_->fetches[index] = Input(node, 0);
  l_->fetch_conditions[index] = ConditionOf(flow_.condition(node));
  const bool known = l_->fetches[index].kind != Value::kNone;
  return known ? absl::OkStatus()
               : absl::InternalError("the optimised graph has a fetch without a value");
}

absl::Status StepBuilder::AddKernel(const Node& node, OpKernel* kernel,
                                    const std::vector<Value>& inputs) {
  Step step = NewStep(Step::kKernel, flow_.condition(node));
  absl::Status set = SetKernel(kernel, inputs, &step);
  if (!set.ok()) return set;
  if (node.type_string() == PartitionedGatherName()) l_->num_gathers += node.num_inputs() - 1;
  const int table = known_.ResolvedTable(node);
  if (table >= 0) {
    step.kind = node.type_string() == "LookupTableFindV2" ? Step::kFind : Step::kSize;
    step.number = table;
  }
  if (options_.choose_kernels && step.async == nullptr) {
    step.other = kernels_.MakeOther(node, *kernel);
    if (step.other != nullptr) step.choice = program_->choice(node);
  }
  if (step.kind == Step::kKernel && step.other == nullptr && step.num_outputs == 1) {
    if (std::unique_ptr<SmallOperation> small = SmallOperation::Make(node)) {
      step.small = small.get();
      l_->small_operations.push_back(std::move(small));
    }
  }
  for (int i = 0; i < step.num_outputs; ++i) {
    values_->Set(node, i, {Value::kSlot, step.first_output + i});
  }
  Push(std::move(step));
  return absl::OkStatus();
}

absl::Status StepBuilder::SetKernel(OpKernel* kernel, const std::vector<Value>& inputs,
                                    Step* step) {
  step->kernel = kernel;
  step->async = kernel->AsAsync();
  absl::Status added = AddInputs(step, inputs);
  if (!added.ok()) return added;
  step->first_output = static_cast<int>(l_->output_attrs.size());
  step->num_outputs = kernel->num_outputs();
  for (int i = 0; i < step->num_outputs; ++i) {
    tensorflow::AllocatorAttributes attr;
    attr.set_on_host(kernel->output_memory_types()[i] == tensorflow::HOST_MEMORY);
    l_->output_attrs.push_back(attr);
  }
  l_->may_wait |= step->async != nullptr;
  l_->needs_step |= step->async != nullptr ||
                    absl::StartsWith(kernel->type_string(), "TensorArray") ||
                    absl::StartsWith(kernel->type_string(), "Stack");
  return absl::OkStatus();
}

absl::Status StepBuilder::AddLookups(const std::vector<const Node*>& nodes) {
  std::vector<Value> inputs;
  const auto add_input = [&inputs](Value value) {
    inputs.push_back(value);
    return static_cast<int>(inputs.size()) - 1;
  };
  const auto add_gather = [&](const Node& node) {
    ++l_->num_gathers;
    const int params = add_input(*known_.Table(node));
    return Lookups::Piece{params, add_input(Input(node, 1))};
  };
  std::vector<Lookups::Output> outputs;
  for (const Node* node : nodes) {
    const int* axis = fusion_.Axis(*node);
    if (axis == nullptr) {
      outputs.push_back({false, 0, {add_gather(*node)}});
      continue;
    }
    Lookups::Output output = {true, *axis, {}};
    for (int i = 0; i + 1 < node->num_inputs(); ++i) {
      const Node* gather = fusion_.Absorbed(*node, i);
      output.pieces.push_back(gather != nullptr ? add_gather(*gather)
                                                : Lookups::Piece{-1, add_input(Input(*node, i))});
    }
    outputs.push_back(std::move(output));
  }
  Step step = NewStep(Step::kLookups, flow_.condition(*nodes[0]));
  step.number = static_cast<int>(l_->lookups.size());
  absl::Status added = AddInputs(&step, inputs);
  if (!added.ok()) return added;
  step.num_outputs = static_cast<int>(nodes.size());
  step.first_output = NewSlots(step.num_outputs);
  for (size_t i = 0; i < nodes.size(); ++i) {
    values_->Set(*nodes[i], 0, {Value::kSlot, step.first_output + static_cast<int>(i)});
  }
  Fused fused = {Lookups(std::move(outputs)), {}, {}};
  for (size_t i = 0; i < nodes.size(); ++i) {
    added = AddUnfused(*nodes[i], step.first_output + static_cast<int>(i), &fused);
    if (!added.ok()) return added;
  }
  l_->lookups.push_back(std::move(fused));
  Push(std::move(step));
  return absl::OkStatus();
}

absl::Status StepBuilder::AddUnfused(const Node& node, int slot, Fused* fused) {
  std::map<int, int> gathered;  // slots, by input
  for (int i = 0; i < node.num_inputs(); ++i) {
    const Node* gather = fusion_.Absorbed(node, i);
    if (gather == nullptr) continue;
    gathered[i] = NewSlots(1);
    fused->temporaries.push_back(gathered[i]);
    absl::Status added = AddUnfusedKernel(*gather, gathered[i], {}, fused);
    if (!added.ok()) return added;
  }
  return AddUnfusedKernel(node, slot, gathered, fused);
}

absl::Status StepBuilder::AddUnfusedKernel(const Node& node, int slot,
                                           const std::map<int, int>& gathered, Fused* fused) {
  Step step;
  OpKernel* kernel;
  std::vector<Value> inputs;
  absl::Status status = kernels_.Make(node, &kernel, &inputs);
  if (!status.ok()) return status;
  for (const auto& [input, from] : gathered) inputs[input] = {Value::kSlot, from};
  step.kernel = kernel;
  status = AddInputs(&step, inputs);
  step.first_output = slot;
  step.num_outputs = 1;
  fused->kernels.push_back(std::move(step));
  return status;
}

StepBuilder::Step StepBuilder::NewStep(Step::Kind kind, const ControlFlow::Condition& condition) {
  Step step;
  step.kind = kind;
  step.condition = ConditionOf(condition);
  return step;
}

int StepBuilder::ConditionOf(const ControlFlow::Condition& condition) {
  if (condition.empty()) return Layout::kAlways;
  const auto known = std::find(l_->conditions.begin(), l_->conditions.end(), condition);
  if (known != l_->conditions.end()) return static_cast<int>(known - l_->conditions.begin());
  l_->conditions.push_back(condition);
  return static_cast<int>(l_->conditions.size()) - 1;
}

int StepBuilder::NewSlots(int n) {
  const int first = static_cast<int>(l_->output_attrs.size());
  l_->output_attrs.resize(first + n);
  return first;
}

int StepBuilder::Push(Step step) {
  step.next = static_cast<int>(l_->steps.size()) + 1;
  l_->steps.push_back(std::move(step));
  return static_cast<int>(l_->steps.size()) - 1;
}

absl::Status StepBuilder::AddInputs(Step* step, const std::vector<Value>& inputs) {
  step->first_input = static_cast<int>(l_->inputs.size());
  step->num_inputs = static_cast<int>(inputs.size());
  for (const Value& input : inputs) {
    if (input.kind == Value::kNone) {
      return absl::InternalError("the optimised graph has an input without a value");
    }
    l_->inputs.push_back(input);
    l_->input_attrs.push_back(input.kind == Value::kSlot ? l_->output_attrs[input.index]
                                                         : tensorflow::AllocatorAttributes());
  }
  return absl::OkStatus();
}

}  // namespace session_group
