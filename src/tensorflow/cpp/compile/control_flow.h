// Loops and conditions of a graph, which TensorFlow writes as Switch, Merge, Enter, Exit and
// NextIteration: found out once, so that a run need not.
#ifndef SESSION_GROUP_CONTROL_FLOW_H_
#define SESSION_GROUP_CONTROL_FLOW_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

class ControlFlow {
 public:
  static constexpr int kNoLoop = -1;

  // A fact about a run: that a branch was taken or, where nothing better is known, that a Merge got
  // a value. A branch of a loop's own test is none: it decides whether the loop goes on.
  struct Literal {
    int loop;                       // in which it is found out, anew in each turn
    const tensorflow::Node* merge;  // or NULL for a branch
    std::pair<const tensorflow::Node*, int> predicate;  // node and output
    int side;
  };

  // Under which literals, all of them, a node is run. Sorted.
  using Condition = std::vector<int>;

  // What is handed from turn to turn.
  struct Variable {
    const tensorflow::Node* merge;
    const tensorflow::Node* enter;
    const tensorflow::Node* next;
    // It is the same in all turns.
    bool is_invariant;
    std::vector<const tensorflow::Node*> exits;
  };

  struct Loop {
    int parent = kNoLoop;
    bool in_body = false;  // of the parent
    Condition condition;   // in the parent
    const tensorflow::Node* test = nullptr;
    std::vector<Variable> variables;
    // Those of its turns: from, and how many.
    int first_literal = 0;
    int num_literals = 0;
  };

  // Fails where there is something that this does not understand: the message says what, and at
  // which node. `order` gets all nodes in an order in which each comes after those that it needs,
  // but for what comes from the turn before.
  static absl::Status Analyse(const tensorflow::Graph& graph, ControlFlow* result);

  const std::vector<const tensorflow::Node*>& order() const { return order_; }
  const std::vector<Loop>& loops() const { return loops_; }
  const std::vector<Literal>& literals() const { return literals_; }

  // The innermost loop that a node is run in; Enter and Exit are in theirs.
  int loop(const tensorflow::Node& node) const { return loop_[node.id()]; }
  // Whether it runs only in turns that the loop's test allows, not as a part of the test.
  bool in_body(const tensorflow::Node& node) const { return in_body_[node.id()]; }
  // Within the loop that the node is in.
  const Condition& condition(const tensorflow::Node& node) const { return conditions_[node.id()]; }
  // Under which an edge, but for one to a Merge, brings a value.
  Condition EdgeCondition(const tensorflow::Edge& edge) const;
  // The literals of a predicate that Switches of a loop, or outside of loops, have: the first, for
  // its side 0, and how many sides there are; -1 for none.
  std::pair<int, int> Branch(int loop, const tensorflow::Node& a_switch) const;
  // The edge that brings a Switch its predicate, past nodes that only pass it on: of the Switches
  // of one branch, some may have it by such a node and others not. NULL for none.
  static const tensorflow::Edge* Predicate(const tensorflow::Node& a_switch);
  bool IsLoopSwitch(const tensorflow::Node& node) const;
  // That says whether a Merge got a value; -1 where its condition does.
  int MergeLiteral(const tensorflow::Node& merge) const;

 private:
  class Analysis;

  std::vector<const tensorflow::Node*> order_;
  std::vector<Loop> loops_;
  std::vector<Literal> literals_;
  std::vector<Condition> implied_;  // by literal: what holds where it holds
  std::vector<int> loop_;           // this and the following by a node's id
  std::vector<bool> in_body_;
  std::vector<Condition> conditions_;
  // By loop, node and output of the predicate.
  std::map<std::pair<int, std::pair<const tensorflow::Node*, int>>, std::pair<int, int>> branches_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_CONTROL_FLOW_H_
