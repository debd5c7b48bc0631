#include "compile/control_flow.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/graph/algorithm.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Graph;
using tensorflow::Node;

namespace {

absl::Status NotUnderstood(const char* what, const Node& node) {
  return absl::UnimplementedError(absl::StrCat(what, " (", node.name(), ")"));
}

// The edge that brings an input, with Identity nodes skipped.
const Edge* Source(const Node& node, int input) {
  const Edge* edge;
  if (!node.input_edge(input, &edge).ok()) return nullptr;
  return edge->src()->IsIdentity() ? Source(*edge->src(), 0) : edge;
}

ControlFlow::Condition Union(const ControlFlow::Condition& a, const ControlFlow::Condition& b) {
  ControlFlow::Condition both;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

bool IsBackEdge(const Edge& edge) { return edge.src()->IsNextIteration(); }

}  // namespace

// Visits the nodes once, each after the nodes that it needs.
class ControlFlow::Analysis {
 public:
  Analysis(const Graph& graph, ControlFlow* result) : graph_(graph), r_(result) {}

  absl::Status Run() {
    const int n = graph_.num_node_ids();
    r_->loop_.assign(n, kNoLoop);
    r_->in_body_.assign(n, false);
    r_->conditions_.resize(n);
    // A total order by name, so that programs don't depend on addresses.
    std::vector<Node*> ranked;
    tensorflow::GetReversePostOrder(graph_, &ranked, tensorflow::NodeComparatorName());
    std::vector<int> rank(n, 0);
    for (size_t i = 0; i < ranked.size(); ++i) rank[ranked[i]->id()] = static_cast<int>(i);

    std::vector<int> pending(n, 0);
    std::map<std::string, int> enters;
    for (const Edge* edge : graph_.edges()) {
      if (!IsBackEdge(*edge)) ++pending[edge->dst()->id()];
    }
    for (const Node* node : graph_.op_nodes()) {
      if (node->IsEnter()) ++enters[FrameName(*node)];
    }

    const auto later = [&](const Node* a, const Node* b) { return rank[a->id()] < rank[b->id()]; };
    std::set<const Node*, decltype(later)> ready(later);
    for (const Node* node : ranked) {
      if (pending[node->id()] == 0) ready.insert(node);
    }
    std::map<std::string, std::vector<const Node*>> entered;
    while (!ready.empty()) {
      const Node* node = *ready.begin();
      ready.erase(ready.begin());
      r_->order_.push_back(node);
      std::vector<const Node*> done = {node};
      if (node->IsEnter()) {
        // The nodes of a loop wait until all its Enter nodes have been visited, because these
        // decide where the loop is.
        auto& all = entered[FrameName(*node)];
        all.push_back(node);
        if (static_cast<int>(all.size()) < enters[FrameName(*node)]) continue;
        absl::Status added = AddLoop(all);
        if (!added.ok()) return added;
        done = all;
      } else {
        absl::Status visited = Visit(*node);
        if (!visited.ok()) return visited;
      }
      for (const Node* from : done) {
        for (const Edge* edge : from->out_edges()) {
          if (!IsBackEdge(*edge) && --pending[edge->dst()->id()] == 0) ready.insert(edge->dst());
        }
      }
    }
    if (static_cast<int>(r_->order_.size()) != graph_.num_nodes()) {
      return absl::UnimplementedError("control flow whose nodes wait for each other");
    }
    return FindVariables();
  }

 private:
  static std::string FrameName(const Node& enter) {
    std::string name;
    return tensorflow::GetNodeAttr(enter.attrs(), "frame_name", &name).ok() ? name : "";
  }

  // The loop that the outputs of a node belong to.
  int LoopAfter(const Node& node) const {
    const int loop = r_->loop_[node.id()];
    return node.IsExit() && loop != kNoLoop ? r_->loops_[loop].parent : loop;
  }

  bool EdgeInBody(const Edge& edge) const {
    const Node& from = *edge.src();
    if (from.IsExit()) return r_->loops_[r_->loop_[from.id()]].in_body;
    return r_->in_body_[from.id()] || (r_->IsLoopSwitch(from) && edge.src_output() == 1);
  }

  absl::Status AddLoop(const std::vector<const Node*>& enters) {
    const int number = static_cast<int>(r_->loops_.size());
    Loop loop;
    bool is_first = true;
    for (const Node* enter : enters) {
      for (const Edge* edge : enter->in_edges()) {
        if (edge->src()->IsSource()) continue;
        const int parent = LoopAfter(*edge->src());
        if (!is_first && parent != loop.parent) {
          return NotUnderstood("a loop that is entered from several loops", *enter);
        }
        is_first = false;
        loop.parent = parent;
        loop.in_body |= EdgeInBody(*edge);
        loop.condition = Union(loop.condition, r_->EdgeCondition(*edge));
      }
      r_->loop_[enter->id()] = number;
    }
    loop.condition = Minimal(loop.condition);
    r_->loops_.push_back(std::move(loop));
    return absl::OkStatus();
  }

  absl::Status Visit(const Node& node) {
    int& loop = r_->loop_[node.id()];
    bool is_first = true;
    for (const Edge* edge : node.in_edges()) {
      if (edge->src()->IsSource() || IsBackEdge(*edge)) continue;
      const int from = LoopAfter(*edge->src());
      // Edges from all loops lead to the sink.
      if (!is_first && from != loop && !node.IsSink()) {
        return NotUnderstood("an edge from one loop into another", node);
      }
      is_first = false;
      loop = from;
    }
    if (node.IsSink()) {
      loop = kNoLoop;
      return absl::OkStatus();
    }
    if (!node.IsOp()) return absl::OkStatus();
    // Such a fetch would get a value in each iteration, or none, which TensorFlow's executor
    // reports as an error.
    if (loop != kNoLoop && node.IsRetval()) return NotUnderstood("a fetch from a loop", node);
    if (loop == kNoLoop && (node.IsExit() || node.IsNextIteration() || node.IsLoopCond())) {
      return NotUnderstood("a node of a loop outside of any loop", node);
    }
    if (node.IsLoopCond()) {
      const Node*& test = r_->loops_[loop].test;
      if (test != nullptr) return NotUnderstood("a loop with two tests", node);
      test = &node;
    }
    const bool is_merge = node.IsMerge();
    for (const Edge* edge : node.in_edges()) {
      if (edge->src()->IsSource() || IsBackEdge(*edge)) continue;
      if (r_->IsLoopSwitch(*edge->src()) && edge->src_output() == 0 && !node.IsExit()) {
        return NotUnderstood("a node that runs only at the end of a loop", node);
      }
      if (EdgeInBody(*edge)) r_->in_body_[node.id()] = true;
      if (is_merge) continue;
      Condition& condition = r_->conditions_[node.id()];
      condition = Union(condition, r_->EdgeCondition(*edge));
    }
    Condition& condition = r_->conditions_[node.id()];
    condition = Minimal(condition);
    if (is_merge) return VisitMerge(node);
    if (node.IsSwitch() && !r_->IsLoopSwitch(node)) return AddBranch(node, loop);
    if (node.IsExit() && r_->in_body_[node.id()]) {
      return NotUnderstood("a loop that is left from its body", node);
    }
    return absl::OkStatus();
  }

  absl::Status AddBranch(const Node& node, int loop) {
    const Edge* predicate = Predicate(node);
    if (node.num_inputs() != 2 || predicate == nullptr) {
      return NotUnderstood("a Switch without a predicate", node);
    }
    if (predicate->src()->IsLoopCond()) {
      return NotUnderstood("a branch on the test of a loop outside of its variables", node);
    }
    const std::pair<const Node*, int> from = {predicate->src(), predicate->src_output()};
    const int sides = node.num_outputs();
    const int first = static_cast<int>(r_->literals_.size());
    if (!r_->branches_.insert({{loop, from, sides}, first}).second) return absl::OkStatus();
    for (int side = 0; side < sides; ++side) {
      r_->literals_.push_back({loop, nullptr, from, side, sides});
      r_->implied_.push_back(WithImplied(r_->EdgeCondition(*predicate)));
    }
    return absl::OkStatus();
  }

  absl::Status VisitMerge(const Node& node) {
    std::vector<Condition> inputs;
    for (const Edge* edge : node.in_edges()) {
      if (edge->IsControlEdge()) continue;
      if (edge->src()->IsEnter() || IsBackEdge(*edge))
        return absl::OkStatus();  // a Merge of a loop
      inputs.push_back(r_->EdgeCondition(*edge));
    }
    Condition& condition = r_->conditions_[node.id()];
    if (inputs.empty()) return NotUnderstood("a Merge without inputs", node);
    if (std::any_of(inputs.begin(), inputs.end(), [](const auto& c) { return c.empty(); })) {
      return absl::OkStatus();  // It always has a value.
    }
    if (Joins(inputs, &condition)) return absl::OkStatus();
    condition = {static_cast<int>(r_->literals_.size())};
    r_->literals_.push_back({r_->loop_[node.id()], &node, {nullptr, 0}, 0, 0});
    r_->implied_.push_back({});
    return absl::OkStatus();
  }

  // Whether a Merge's inputs are all sides of one branch. If so, sets `common` to what else their
  // conditions have in common.
  bool Joins(const std::vector<Condition>& inputs, Condition* common) const {
    for (const int candidate : inputs[0]) {
      const Literal& literal = r_->literals_[candidate];
      if (literal.merge != nullptr) continue;
      if (literal.sides != static_cast<int>(inputs.size())) continue;
      const int first = candidate - literal.side;
      std::set<int> sides;
      Condition rest;
      bool same = true;
      for (size_t i = 0; i < inputs.size(); ++i) {
        Condition others;
        std::vector<int> own;
        for (const int l : inputs[i]) {
          const bool is_side = l >= first && l < first + literal.sides;
          (is_side ? own : others).push_back(l);
        }
        // A condition with two sides of the branch never holds.
        if (own.size() == 1) sides.insert(own[0]);
        if (i == 0) rest = others;
        same &= others == rest;
      }
      if (!same || static_cast<int>(sides.size()) != literal.sides) continue;
      *common = Minimal(Union(rest, r_->implied_[first]));
      return true;
    }
    return false;
  }

  Condition WithImplied(const Condition& condition) const {
    Condition all = condition;
    for (const int literal : condition) all = Union(all, r_->implied_[literal]);
    return all;
  }

  // The condition without literals that its others imply.
  Condition Minimal(const Condition& condition) const {
    Condition implied;
    for (const int literal : condition) implied = Union(implied, r_->implied_[literal]);
    Condition minimal;
    std::set_difference(condition.begin(), condition.end(), implied.begin(), implied.end(),
                        std::back_inserter(minimal));
    return minimal;
  }

  absl::Status FindVariables() {
    for (const Node* node : r_->order_) {
      if (node->IsEnter()) {
        bool is_constant = false;
        tensorflow::GetNodeAttr(node->attrs(), "is_constant", &is_constant).IgnoreError();
        for (const Edge* edge : node->out_edges()) {
          if (!is_constant && !edge->IsControlEdge() && !edge->dst()->IsMerge()) {
            return NotUnderstood("a value that enters a loop only for its first iteration", *node);
          }
        }
      } else if (node->IsMerge()) {
        absl::Status added = AddVariable(*node);
        if (!added.ok()) return added;
      } else if (node->IsExit()) {
        absl::Status added = AddExit(*node);
        if (!added.ok()) return added;
      }
    }
    for (size_t i = 0; i < r_->loops_.size(); ++i) {
      const Loop& loop = r_->loops_[i];
      if (loop.test == nullptr || r_->in_body_[loop.test->id()] ||
          !r_->conditions_[loop.test->id()].empty()) {
        return absl::UnimplementedError("a loop without a test of its own");
      }
    }
    // The literals of a loop lie side by side, so that an iteration can clear them all at once.
    SortLiterals();
    return absl::OkStatus();
  }

  absl::Status AddVariable(const Node& merge) {
    const Node* enter = nullptr;
    const Node* next = nullptr;
    for (const Edge* edge : merge.in_edges()) {
      if (edge->IsControlEdge()) continue;
      const Node*& found = edge->src()->IsEnter() ? enter : next;
      if (!edge->src()->IsEnter() && !edge->src()->IsNextIteration()) continue;
      if (found != nullptr) return NotUnderstood("a loop variable with two values", merge);
      found = edge->src();
    }
    if (enter == nullptr && next == nullptr) return absl::OkStatus();  // a Merge of a branch
    if (enter == nullptr || next == nullptr || merge.num_inputs() != 2) {
      return NotUnderstood("a loop variable without an Enter or a NextIteration", merge);
    }
    const int loop = r_->loop_[merge.id()];
    if (r_->loop_[next->id()] != loop || !r_->in_body_[next->id()] ||
        !r_->conditions_[next->id()].empty()) {
      return NotUnderstood("a loop variable that some iterations don't update", merge);
    }
    const Edge* from = Source(*next, 0);
    const bool is_invariant = from != nullptr && r_->IsLoopSwitch(*from->src()) &&
                              from->src_output() == 1 && VariableOf(*from->src()) == &merge;
    r_->loops_[loop].variables.push_back({&merge, enter, next, is_invariant, {}});
    return absl::OkStatus();
  }

  // The Merge that a loop's Switch gets its value from.
  static const Node* VariableOf(const Node& a_switch) {
    const Edge* from = Source(a_switch, 0);
    return from != nullptr && from->src()->IsMerge() && from->src_output() == 0 ? from->src()
                                                                                : nullptr;
  }

  absl::Status AddExit(const Node& exit) {
    const Edge* from = Source(exit, 0);
    if (from != nullptr && r_->IsLoopSwitch(*from->src()) && from->src_output() == 0) {
      const Node* merge = VariableOf(*from->src());
      for (Variable& variable : r_->loops_[r_->loop_[exit.id()]].variables) {
        if (variable.merge == merge) {
          variable.exits.push_back(&exit);
          return absl::OkStatus();
        }
      }
    }
    return NotUnderstood("a loop that returns more than its variables", exit);
  }

  void SortLiterals() {
    const int n = static_cast<int>(r_->literals_.size());
    std::vector<int> by_loop(n);
    for (int i = 0; i < n; ++i) by_loop[i] = i;
    std::stable_sort(by_loop.begin(), by_loop.end(),
                     [&](int a, int b) { return r_->literals_[a].loop < r_->literals_[b].loop; });
    std::vector<int> place(n);
    std::vector<Literal> literals;
    for (int i = 0; i < n; ++i) {
      place[by_loop[i]] = i;
      literals.push_back(r_->literals_[by_loop[i]]);
      const int loop = literals.back().loop;
      if (loop == kNoLoop) continue;
      if (r_->loops_[loop].num_literals++ == 0) r_->loops_[loop].first_literal = i;
    }
    r_->literals_ = std::move(literals);
    const auto moved = [&](Condition* condition) {
      for (int& literal : *condition) literal = place[literal];
      std::sort(condition->begin(), condition->end());
    };
    for (Condition& condition : r_->conditions_) moved(&condition);
    for (Loop& loop : r_->loops_) moved(&loop.condition);
    for (auto& [key, first] : r_->branches_) first = place[first];
    std::vector<Condition> implied(n);
    for (int i = 0; i < n; ++i) {
      implied[place[i]] = std::move(r_->implied_[i]);
      moved(&implied[place[i]]);
    }
    r_->implied_ = std::move(implied);
  }

  const Graph& graph_;
  ControlFlow* const r_;
};

absl::Status ControlFlow::Analyse(const Graph& graph, ControlFlow* result) {
  *result = ControlFlow();
  return Analysis(graph, result).Run();
}

bool ControlFlow::IsLoopSwitch(const Node& node) const {
  if (!node.IsSwitch() || loop_[node.id()] == kNoLoop) return false;
  const Edge* predicate = Predicate(node);
  return predicate != nullptr && predicate->src()->IsLoopCond() &&
         loop_[predicate->src()->id()] == loop_[node.id()];
}

const Edge* ControlFlow::Predicate(const Node& a_switch) { return Source(a_switch, 1); }

std::pair<int, int> ControlFlow::Branch(int loop, const Node& a_switch) const {
  const Edge* predicate = Predicate(a_switch);
  if (predicate == nullptr) return {-1, 0};
  const int sides = a_switch.num_outputs();
  const auto first = branches_.find({loop, {predicate->src(), predicate->src_output()}, sides});
  return first == branches_.end() ? std::make_pair(-1, 0) : std::make_pair(first->second, sides);
}

int ControlFlow::MergeLiteral(const Node& merge) const {
  for (size_t i = 0; i < literals_.size(); ++i) {
    if (literals_[i].merge == &merge) return static_cast<int>(i);
  }
  return -1;
}

ControlFlow::Condition ControlFlow::EdgeCondition(const Edge& edge) const {
  const Node& from = *edge.src();
  if (from.IsExit()) return loops_[loop_[from.id()]].condition;
  const Condition& condition = conditions_[from.id()];
  if (edge.IsControlEdge() || !from.IsSwitch() || IsLoopSwitch(from)) return condition;
  const std::pair<int, int> branch = Branch(loop_[from.id()], from);
  const int literal = branch.first + edge.src_output();
  // The side implies what its predicate needs.
  Condition others;
  const Condition& implied = implied_[literal];
  std::set_difference(condition.begin(), condition.end(), implied.begin(), implied.end(),
                      std::back_inserter(others));
  return Union({literal}, others);
}

}  // namespace session_group
