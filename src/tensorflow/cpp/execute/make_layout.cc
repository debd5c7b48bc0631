#include "execute/make_layout.h"

#include "compile/control_flow.h"
#include "execute/known_values.h"
#include "execute/liveness.h"
#include "execute/lookup_fusion.h"
#include "execute/node_values.h"
#include "execute/step_builder.h"
#include "execute/step_order.h"
#include "tensorflow/core/framework/node_def_util.h"

namespace session_group {

using tensorflow::Node;

absl::Status MakeLayout(Program* program, const Layout::Options& options, ResolvedReads* reads,
                        Layout* layout) {
  const ControlFlow& flow = program->control_flow();
  layout->num_literals = static_cast<int>(flow.literals().size());
  layout->feed_types = program->feed_types();
  layout->fetches.resize(program->num_fetches());
  layout->fetch_conditions.resize(program->num_fetches(), Layout::kAlways);

  NodeValues values(flow, layout);
  KnownValues known(*program, options, reads, layout, &values);
  for (const Node* node : flow.order()) {
    if (node->IsSource() || node->IsSink()) continue;
    absl::Status found = known.Find(*node);
    if (!found.ok()) return tensorflow::AttachDef(found, node->def());
  }
  LookupFusion fusion(flow, known, values);
  for (const Node* node : flow.order()) fusion.FindConcatenation(*node);
  const StepOrder order(flow, fusion);
  absl::Status built = StepBuilder(program, options, known, fusion, order, layout, &values).Build();
  if (!built.ok()) return built;
  FindLastUses(layout);
  return absl::OkStatus();
}

}  // namespace session_group
