#include "execute/step_order.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;

StepOrder::StepOrder(const ControlFlow& flow, const LookupFusion& fusion)
    : flow_(flow), fusion_(fusion) {
  const std::vector<const Node*>& order = flow_.order();
  for (size_t i = 0; i < order.size(); ++i) ranks_[order[i]] = i;
  children_.resize(flow_.loops().size() + 1);
  for (const Node* node : order) {
    if (node->IsSource() || node->IsSink()) continue;
    children_[flow_.loop(*node) + 1].push_back(node);
  }
  for (size_t i = 0; i < flow_.loops().size(); ++i) loop_units_.push_back(children_[i + 1][0]);
}

absl::Status StepOrder::Find(int loop, std::vector<Item>* items) const {
  std::map<const Node*, int> pending;
  std::map<const Node*, std::vector<const Node*>> members;
  for (int i = loop; i < static_cast<int>(flow_.loops().size()); ++i) {
    for (const Node* node : children_[i + 1]) {
      if (!IsWithin(*node, loop)) continue;
      const Node* unit = Unit(node, loop);
      members[unit].push_back(node);
      int& count = pending[unit];
      for (const Edge* edge : node->in_edges()) count += IsNeeded(*edge, unit, loop);
    }
  }
  // By rank, so that the order does not depend on addresses. Index 0 has the units outside of the
  // loop's body.
  std::map<size_t, const Node*> ready[2];
  std::map<size_t, const Node*> ready_lookups[2];
  const auto become_ready = [&](const Node* unit) {
    const bool in_body = UnitInBody(unit, loop);
    (fusion_.IsLookup(*unit) ? ready_lookups : ready)[in_body][ranks_.at(unit)] = unit;
  };
  const auto finish = [&](const Node* unit) {
    for (const Node* node : members[unit]) {
      for (const Edge* edge : node->out_edges()) {
        if (edge->dst()->IsSink() || !IsWithin(*edge->dst(), loop)) continue;
        const Node* user = Unit(edge->dst(), loop);
        if (IsNeeded(*edge, user, loop) && --pending[user] == 0) become_ready(user);
      }
    }
  };
  size_t left = pending.size();
  for (const auto& [unit, edges] : pending) {
    if (edges == 0) become_ready(unit);
  }
  const bool is_loop = loop != ControlFlow::kNoLoop;
  for (const bool in_body : {false, true}) {
    auto& now = ready[in_body];
    auto& lookups = ready_lookups[in_body];
    while (!now.empty() || !lookups.empty()) {
      if (now.empty()) {
        const std::vector<const Node*> nodes = TakeLookups(&lookups);
        items->push_back({Item::kLookups, nodes});
        left -= nodes.size();
        for (const Node* node : nodes) finish(node);
        continue;
      }
      const Node* unit = now.begin()->second;
      now.erase(now.begin());
      items->push_back({flow_.loop(*unit) == loop ? Item::kNode : Item::kLoop, {unit}});
      --left;
      finish(unit);
    }
    if (is_loop && !in_body) items->push_back({Item::kTest, {}});
  }
  return left == 0 ? absl::OkStatus()
                   : absl::InternalError("nodes of the optimised graph wait for each other");
}

// The unit of a loop that a node is part of: a concatenation, a loop in this loop, or the node
// itself.
const Node* StepOrder::Unit(const Node* node, int loop) const {
  int own = flow_.loop(*node);
  if (own != loop) {
    while (flow_.loops()[own].parent != loop) own = flow_.loops()[own].parent;
    return loop_units_[own];
  }
  const Node* concatenation = fusion_.ConcatenationOf(*node);
  return concatenation == nullptr ? node : concatenation;
}

bool StepOrder::IsWithin(const Node& node, int loop) const {
  for (int own = flow_.loop(node);; own = flow_.loops()[own].parent) {
    if (own == loop) return true;
    if (own == ControlFlow::kNoLoop) return false;
  }
}

bool StepOrder::UnitInBody(const Node* unit, int loop) const {
  const int own = flow_.loop(*unit);
  return own == loop ? flow_.in_body(*unit) : flow_.loops()[own].in_body;
}

// Whether a unit of this loop must wait for the value of an edge.
bool StepOrder::IsNeeded(const Edge& edge, const Node* unit, int loop) const {
  return !edge.src()->IsSource() && !edge.src()->IsNextIteration() && IsWithin(*edge.src(), loop) &&
         Unit(edge.src(), loop) != unit;
}

// Takes all lookups that run exactly when the first one runs.
std::vector<const Node*> StepOrder::TakeLookups(std::map<size_t, const Node*>* ready) const {
  std::vector<const Node*> nodes;
  for (auto next = ready->begin(); next != ready->end();) {
    if (!nodes.empty() && !fusion_.RunTogether(*nodes[0], *next->second)) {
      ++next;
      continue;
    }
    nodes.push_back(next->second);
    next = ready->erase(next);
  }
  return nodes;
}

}  // namespace session_group
