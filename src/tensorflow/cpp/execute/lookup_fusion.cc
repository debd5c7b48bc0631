#include "execute/lookup_fusion.h"

#include <vector>

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;

void LookupFusion::FindConcatenation(const Node& node) {
  if (node.type_string() != "ConcatV2") return;
  const int64_t axis = values_.ConstantAxis(node, node.num_inputs() - 1);
  if (axis < -1 || axis > tensorflow::TensorShape::MaxDimensions()) return;
  std::vector<const Node*> gathers;
  for (int i = 0; i + 1 < node.num_inputs(); ++i) {
    const Edge* edge;
    if (!node.input_edge(i, &edge).ok()) return;
    const Node* gather = edge->src();
    // The rows of a table of another rank would be concatenated along another axis than the last.
    const Layout::Value* table = known_.Table(*gather);
    if (table != nullptr && known_.MayBeMatrix(*table) && gather->out_edges().size() == 1 &&
        RunTogether(*gather, node)) {
      gathers.push_back(gather);
    }
  }
  if (gathers.size() < 2) return;
  concatenations_[&node] = static_cast<int>(axis);
  for (const Node* gather : gathers) absorbed_[gather] = &node;
}

const Node* LookupFusion::Absorbed(const Node& concatenation, int input) const {
  const Edge* edge;
  if (!concatenation.input_edge(input, &edge).ok()) return nullptr;
  const auto absorbed = absorbed_.find(edge->src());
  const bool is = absorbed != absorbed_.end() && absorbed->second == &concatenation;
  return is ? edge->src() : nullptr;
}

bool LookupFusion::RunTogether(const Node& a, const Node& b) const {
  return flow_.loop(a) == flow_.loop(b) && flow_.in_body(a) == flow_.in_body(b) &&
         flow_.condition(a) == flow_.condition(b);
}

}  // namespace session_group
