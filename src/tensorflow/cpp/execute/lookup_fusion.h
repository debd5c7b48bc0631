// The second pass of a layout: finds the concatenations of gathers that Lookups do at once.
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

  // Finds a concatenation along the last axis of gathers that have no other user. To be called for
  // each node, in the program's order.
  void FindConcatenation(const tensorflow::Node& node);

  // Whether Lookups do a node, which is a gather or a concatenation.
  bool IsLookup(const tensorflow::Node& node) const {
    return known_.Table(node) != nullptr || concatenations_.count(&node) > 0;
  }
  // The axis of a concatenation that Lookups do; NULL for any other node.
  const int* Axis(const tensorflow::Node& node) const {
    const auto found = concatenations_.find(&node);
    return found == concatenations_.end() ? nullptr : &found->second;
  }
  // The concatenation that a gather is a part of; NULL if there is none.
  const tensorflow::Node* ConcatenationOf(const tensorflow::Node& node) const {
    const auto found = absorbed_.find(&node);
    return found == absorbed_.end() ? nullptr : found->second;
  }
  // The gather that is this input of a concatenation and a part of it; NULL if there is none.
  const tensorflow::Node* Absorbed(const tensorflow::Node& concatenation, int input) const;
  // Whether each of the two runs exactly when the other runs.
  bool RunTogether(const tensorflow::Node& a, const tensorflow::Node& b) const;

 private:
  const ControlFlow& flow_;
  const KnownValues& known_;
  const NodeValues& values_;
  // Concatenations, with the axis.
  std::map<const tensorflow::Node*, int> concatenations_;
  // Gathers, with the concatenation that they are a part of.
  std::map<const tensorflow::Node*, const tensorflow::Node*> absorbed_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_LOOKUP_FUSION_H_
