// The fourth pass of a layout: makes its steps.
#ifndef SESSION_GROUP_STEP_BUILDER_H_
#define SESSION_GROUP_STEP_BUILDER_H_

#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "compile/control_flow.h"
#include "compile/program.h"
#include "execute/kernel_factory.h"
#include "execute/known_values.h"
#include "execute/layout.h"
#include "execute/lookup_fusion.h"
#include "execute/node_values.h"
#include "execute/step_order.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

// Adds the steps of all nodes to a layout, with slots for their outputs.
class StepBuilder {
 public:
  StepBuilder(Program* program, const Layout::Options& options, const KnownValues& known,
              const LookupFusion& fusion, const StepOrder& order, Layout* layout,
              NodeValues* values);

  absl::Status Build() { return AddRange(ControlFlow::kNoLoop); }

 private:
  using Fused = Layout::Fused;
  using Step = Layout::Step;
  using Value = Layout::Value;

  // Adds the nodes of a loop, or those outside of loops.
  absl::Status AddRange(int loop);
  absl::Status Add(const tensorflow::Node& node);
  absl::Status AddFetch(const tensorflow::Node& node);
  absl::Status AddKernel(const tensorflow::Node& node, tensorflow::OpKernel* kernel,
                         const std::vector<Value>& inputs);
  // Sets the kernel of a step and adds slots for its outputs.
  absl::Status SetKernel(tensorflow::OpKernel* kernel, const std::vector<Value>& inputs,
                         Step* step);

  absl::Status AddLookups(const std::vector<const tensorflow::Node*>& nodes);
  // Adds the kernels of a node that Lookups do, including the gathers that are a part of it.
  absl::Status AddUnfused(const tensorflow::Node& node, int slot, Fused* fused);
  absl::Status AddUnfusedKernel(const tensorflow::Node& node, int slot,
                                const std::map<int, int>& gathered, Fused* fused);

  // In control_flow_layout.cc.
  absl::Status AddBranch(const tensorflow::Node& node);
  absl::Status AddMerge(const tensorflow::Node& node);
  absl::Status AddLoop(int number);
  absl::Status AddTest(int number);
  absl::Status AddAdvance(int number);

  Step NewStep(Step::Kind kind, const ControlFlow::Condition& condition);
  int ConditionOf(const ControlFlow::Condition& condition);
  int NewSlots(int n);
  int Push(Step step);
  absl::Status AddInputs(Step* step, const std::vector<Value>& inputs);
  Value Input(const tensorflow::Node& node, int input) const { return values_->Input(node, input); }

  Program* const program_;
  const ControlFlow& flow_;
  const Layout::Options& options_;
  const KnownValues& known_;
  const LookupFusion& fusion_;
  const StepOrder& order_;
  Layout* const l_;
  NodeValues* const values_;
  KernelFactory kernels_;
  std::set<int> branched_;          // the first literals of branches with a step
  std::map<int, int> own_numbers_;  // by loop of the program, the loop in the layout
};

}  // namespace session_group

#endif  // SESSION_GROUP_STEP_BUILDER_H_
