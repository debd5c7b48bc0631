// Second pass of a layout: which gathers become parts of a concatenation.
#ifndef SESSION_GROUP_LOOKUP_FUSION_H_
#define SESSION_GROUP_LOOKUP_FUSION_H_

#include <map>

#include "compile/control_flow.h"
#include "execute/known_values.h"
#include "execute/node_values.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

class LookupFusion {
 public:
  LookupFusion(const ControlFlow& flow, const KnownValues& known, const NodeValues& values)
      : flow_(flow), known_(known), values_(values) {}

  // Finds concatenations along the last axis of gathers that nobody else needs. For each node, in
  // the program's order.
  void FindConcatenation(const tensorflow::Node& node);

  // Whether Lookups do a node, which may be a concatenation.
  bool IsLookup(const tensorflow::Node& node) const {
    return known_.Table(node) != nullptr || concatenations_.count(&node) > 0;
  }
  // The axis of a concatenation that Lookups do; NULL for any other node.
  const int* Axis(const tensorflow::Node& node) const {
    const auto found = concatenations_.find(&node);
    return found == concatenations_.end() ? nullptr : &found->second;
  }
  // The concatenation that a gather became a part of; NULL for none.
  const tensorflow::Node* ConcatenationOf(const tensorflow::Node& node) const {
    const auto found = absorbed_.find(&node);
    return found == absorbed_.end() ? nullptr : found->second;
  }
  // The gather that became a part of a concatenation, as this input of it; NULL for none.
  const tensorflow::Node* Absorbed(const tensorflow::Node& concatenation, int input) const;
  // Whether one is run exactly when the other is.
  bool RunTogether(const tensorflow::Node& a, const tensorflow::Node& b) const;

 private:
  const ControlFlow& flow_;
  const KnownValues& known_;
  const NodeValues& values_;
  std::map<const tensorflow::Node*, int> concatenations_;  // with their axis
  std::map<const tensorflow::Node*, const tensorflow::Node*>
      absorbed_;  // gathers, with their concatenation
};

}  // namespace session_group

#endif  // SESSION_GROUP_LOOKUP_FUSION_H_
