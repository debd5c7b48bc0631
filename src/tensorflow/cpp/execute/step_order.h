// Third pass of a layout: the order of its steps.
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
  // What runs one after the other, in a loop or outside of all.
  struct Item {
    enum Kind {
      kNode,
      kLoop,     // in this loop
      kLookups,  // all at a time
      kTest,     // of the loop
    } kind;
    // One, but for lookups; of a loop, one of its nodes; none for a test.
    std::vector<const tensorflow::Node*> nodes;
  };

  StepOrder(const ControlFlow& flow, const LookupFusion& fusion);

  // The steps of a loop, or of what is in none, in an order in which as many lookups as
  // possible come together. What a loop's test needs comes before the test.
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
  std::vector<std::vector<const tensorflow::Node*>> children_;  // by loop, first those in none
  std::vector<const tensorflow::Node*> loop_units_;  // by loop, a node that stands for it
};

}  // namespace session_group

#endif  // SESSION_GROUP_STEP_ORDER_H_
