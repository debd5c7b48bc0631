// Finds the loops and conditions of a graph, which TensorFlow writes as Switch, Merge, Enter, Exit
// and NextIteration, so that runs need not find them.
#ifndef SESSION_GROUP_CONTROL_FLOW_H_
#define SESSION_GROUP_CONTROL_FLOW_H_

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

class ControlFlow {
 public:
  static constexpr int kNoLoop = -1;

  // A fact about a run: a branch was taken or, if the analysis knows nothing better, a Merge got a
  // value. The test of a loop is no literal, because it decides whether the loop goes on.
  struct Literal {
    int loop;                                           // whose iterations each find it anew
    const tensorflow::Node* merge;                      // NULL for a branch
    std::pair<const tensorflow::Node*, int> predicate;  // node and output
    int side;
    int sides;  // of the branch, which come one after the other
  };

  // The literals that must all hold so that a node runs. Sorted.
  using Condition = std::vector<int>;

  // A value that each iteration hands to the next.
  struct Variable {
    const tensorflow::Node* merge;
    const tensorflow::Node* enter;
    const tensorflow::Node* next;
    // It is the same in all iterations.
    bool is_invariant;
    std::vector<const tensorflow::Node*> exits;
  };

  struct Loop {
    int parent = kNoLoop;
    bool in_body = false;  // of the parent
    Condition condition;   // in the parent
    const tensorflow::Node* test = nullptr;
    std::vector<Variable> variables;
    // The literals of its iterations: the first, and how many.
    int first_literal = 0;
    int num_literals = 0;
  };

  // Fails if the graph has something that the analysis does not understand. The message says what,
  // and at which node. order() then has all nodes, each after the nodes that it needs, except for
  // values of the previous iteration.
  static absl::Status Analyse(const tensorflow::Graph& graph, ControlFlow* result);

  const std::vector<const tensorflow::Node*>& order() const { return order_; }
  const std::vector<Loop>& loops() const { return loops_; }
  const std::vector<Literal>& literals() const { return literals_; }

  // The innermost loop that a node runs in. Enter and Exit belong to their loop.
  int loop(const tensorflow::Node& node) const { return loop_[node.id()]; }
  // Whether a node runs only after the loop's test has passed, not as a part of the test.
  bool in_body(const tensorflow::Node& node) const { return in_body_[node.id()]; }
  // The condition of a node within its loop.
  const Condition& condition(const tensorflow::Node& node) const { return conditions_[node.id()]; }
  // The condition under which an edge brings a value. Not for edges to a Merge.
  Condition EdgeCondition(const tensorflow::Edge& edge) const;
  // The literals of the predicate of a Switch in this loop, or outside of loops: the first, for
  // side 0, and the number of sides. -1 if there are none.
  std::pair<int, int> Branch(int loop, const tensorflow::Node& a_switch) const;
  // The edge that brings a Switch its predicate, with Identity nodes skipped, because some Switches
  // of a branch may get it through one and others not. NULL if there is none.
  static const tensorflow::Edge* Predicate(const tensorflow::Node& a_switch);
  bool IsLoopSwitch(const tensorflow::Node& node) const;
  // The literal that says whether a Merge got a value; -1 if its condition says so.
  int MergeLiteral(const tensorflow::Node& merge) const;

 private:
  class Analysis;

  std::vector<const tensorflow::Node*> order_;
  std::vector<Loop> loops_;
  std::vector<Literal> literals_;
  std::vector<Condition> implied_;  // by literal: the literals that it implies
  std::vector<int> loop_;           // this and the following two by node id
  std::vector<bool> in_body_;
  std::vector<Condition> conditions_;
  // The first literals by loop, node and output of the predicate, and number of sides: Switch and
  // _SwitchN, or two _SwitchN, may have the same predicate.
  std::map<std::tuple<int, std::pair<const tensorflow::Node*, int>, int>, int> branches_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_CONTROL_FLOW_H_
