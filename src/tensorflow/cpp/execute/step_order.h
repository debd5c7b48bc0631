// The third pass of a layout: finds the order of its steps.
#ifndef SESSION_GROUP_STEP_ORDER_H_
#define SESSION_GROUP_STEP_ORDER_H_

#include <cstddef>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "compile/control_flow.h"
#include "execute/lookup_fusion.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

class StepOrder {
 public:
  // An entry of the order.
  struct Item {
    enum Kind {
      kNode,
      kLoop,     // a loop in this loop
      kLookups,  // lookups to do at once
      kTest,     // the test of this loop
    } kind;
    // kLookups has one or more nodes; kLoop has any node of the loop; kTest has none.
    std::vector<const tensorflow::Node*> nodes;
  };

  StepOrder(const ControlFlow& flow, const LookupFusion& fusion);

  // Finds the order of a loop's nodes, or of the nodes outside of loops, that brings as many
  // lookups as possible together. The loop's test comes after all nodes outside of its body.
  absl::Status Find(int loop, std::vector<Item>* items) const;

 private:
  const tensorflow::Node* Unit(const tensorflow::Node* node, int loop) const;
  bool IsWithin(const tensorflow::Node& node, int loop) const;
  bool UnitInBody(const tensorflow::Node* unit, int loop) const;
  bool IsNeeded(const tensorflow::Edge& edge, const tensorflow::Node* unit, int loop) const;
  std::vector<const tensorflow::Node*> TakeLookups(
      std::map<size_t, const tensorflow::Node*>* ready) const;

  const ControlFlow& flow_;
  const LookupFusion& fusion_;
  std::map<const tensorflow::Node*, size_t> ranks_;
  std::vector<std::vector<const tensorflow::Node*>> children_;  // by loop + 1; at 0, in no loop
  std::vector<const tensorflow::Node*> loop_units_;  // by loop, a node that stands for it
};

}  // namespace session_group

#endif  // SESSION_GROUP_STEP_ORDER_H_
