// Lays out branches and loops: the part of StepBuilder that makes their steps.
#include <algorithm>
#include <utility>

#include "execute/step_builder.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;

absl::Status StepBuilder::AddBranch(const Node& node) {
  const std::pair<int, int> branch = flow_.Branch(flow_.loop(node), node);
  if (!branched_.insert(branch.first).second) return absl::OkStatus();
  Step step = NewStep(Step::kBranch, flow_.EdgeCondition(*ControlFlow::Predicate(node)));
  step.number = branch.first;
  step.num_outputs = branch.second;
  absl::Status added = AddInputs(&step, {Input(node, 1)});
  if (!added.ok()) return added;
  step.first_output = 0;
  Push(std::move(step));
  return absl::OkStatus();
}

absl::Status StepBuilder::AddMerge(const Node& node) {
  // A Merge with a literal always runs, because it finds out whether it got a value.
  Step step = NewStep(Step::kMerge, flow_.MergeLiteral(node) < 0 ? flow_.condition(node)
                                                                 : ControlFlow::Condition());
  step.number = static_cast<int>(l_->merges.size());
  Layout::Merge merge;
  std::vector<Value> inputs;
  for (int i = 0; i < node.num_inputs(); ++i) {
    const Edge* edge;
    absl::Status found = node.input_edge(i, &edge);
    if (!found.ok()) return found;
    merge.conditions.push_back(ConditionOf(flow_.EdgeCondition(*edge)));
    inputs.push_back(Input(node, i));
  }
  merge.literal = flow_.MergeLiteral(node);
  const auto& edges = node.out_edges();
  merge.gives_side =
      std::any_of(edges.begin(), edges.end(), [](auto* edge) { return edge->src_output() == 1; });
  l_->merges.push_back(std::move(merge));
  absl::Status added = AddInputs(&step, inputs);
  if (!added.ok()) return added;
  step.first_output = NewSlots(node.num_outputs());
  step.num_outputs = node.num_outputs();
  for (int i = 0; i < step.num_outputs; ++i) {
    values_->Set(node, i, {Value::kSlot, step.first_output + i});
  }
  Push(std::move(step));
  return absl::OkStatus();
}

absl::Status StepBuilder::AddLoop(int number) {
  const ControlFlow::Loop& loop = flow_.loops()[number];
  Step step = NewStep(Step::kLoop, loop.condition);
  const int own = static_cast<int>(l_->loops.size());
  step.number = own;
  l_->loops.emplace_back();
  l_->loops[own].first_literal = loop.first_literal;
  l_->loops[own].num_literals = loop.num_literals;
  std::vector<Value> firsts;
  std::vector<Layout::Variable> variables;
  for (const ControlFlow::Variable& variable : loop.variables) {
    if (variable.is_invariant) continue;
    firsts.push_back(Input(*variable.enter, 0));
    Layout::Variable placed;
    placed.slot = NewSlots(1);
    placed.next = NewSlots(1);
    values_->Set(*variable.merge, 0, {Value::kSlot, placed.slot});
    variables.push_back(std::move(placed));
  }
  absl::Status added = AddInputs(&step, firsts);
  if (!added.ok()) return added;
  // The step of the loop makes the outputs of the loop.
  step.first_output = static_cast<int>(l_->output_attrs.size());
  size_t v = 0;
  for (const ControlFlow::Variable& variable : loop.variables) {
    if (variable.is_invariant) continue;
    for (const Node* exit : variable.exits) {
      variables[v].exits.push_back(NewSlots(1));
      values_->Set(*exit, 0, {Value::kSlot, variables[v].exits.back()});
    }
    ++v;
  }
  step.num_outputs = static_cast<int>(l_->output_attrs.size()) - step.first_output;
  l_->loops[own].variables = std::move(variables);
  const int at = Push(std::move(step));
  own_numbers_[number] = own;
  added = AddRange(number);
  if (added.ok()) added = AddAdvance(number);
  l_->steps[at].next = static_cast<int>(l_->steps.size());
  return added;
}

absl::Status StepBuilder::AddTest(int number) {
  Step step = NewStep(Step::kTest, {});
  absl::Status added = AddInputs(&step, {Input(*flow_.loops()[number].test, 0)});
  if (added.ok()) l_->loops[own_numbers_[number]].test = Push(std::move(step));
  return added;
}

absl::Status StepBuilder::AddAdvance(int number) {
  Step step = NewStep(Step::kAdvance, {});
  step.number = own_numbers_[number];
  std::vector<Value> nexts;
  for (const ControlFlow::Variable& variable : flow_.loops()[number].variables) {
    if (!variable.is_invariant) nexts.push_back(Input(*variable.next, 0));
  }
  absl::Status added = AddInputs(&step, nexts);
  if (added.ok()) l_->loops[step.number].advance = Push(std::move(step));
  return added;
}

}  // namespace session_group
