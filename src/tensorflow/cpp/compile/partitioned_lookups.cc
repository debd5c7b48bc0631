#include "compile/partitioned_lookups.h"

#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compile/integer_expression.h"
#include "execute/partitioned_gather.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {
namespace {

using tensorflow::Edge;
using tensorflow::Graph;
using tensorflow::Node;

const Edge* InputOf(const Node& node, int input) {
  const Edge* edge;
  return input < node.num_inputs() && node.input_edge(input, &edge).ok() ? edge : nullptr;
}

bool AreSame(const Edge* a, const Edge* b) {
  return a != nullptr && b != nullptr && a->src() == b->src() && a->src_output() == b->src_output();
}

bool IsConstant(const Node& node, int input, int64_t value) {
  const Edge* edge = InputOf(node, input);
  return edge != nullptr && ConstantInteger(*edge->src()) == value;
}

bool WaitsForOthers(const Node& node) {
  for (const Edge* edge : node.in_edges()) {
    if (edge->IsControlEdge() && !edge->src()->IsSource()) return true;
  }
  return false;
}

size_t NumUsers(const Node& node) {
  size_t users = 0;
  for (const Edge* edge : node.out_edges()) users += edge->dst()->IsSink() ? 0 : 1;
  return users;
}

// A gather along the first axis whose values can be copied.
bool IsPlainGather(const Node& node) {
  const std::string& op = node.type_string();
  const tensorflow::AttrValue* batch_dims = node.attrs().Find("batch_dims");
  return ((op == "GatherV2" && IsConstant(node, 2, 0)) || op == "Gather") &&
         (batch_dims == nullptr || batch_dims->i() == 0) && !WaitsForOthers(node) &&
         tensorflow::DataTypeCanUseMemcpy(node.output_type(0));
}

// One lookup.
class Lookup {
 public:
  // Whether a DynamicStitch puts together what such a lookup has gathered.
  bool Find(Node* stitch) {
    stitch_ = stitch;
    if (WaitsForOthers(*stitch)) return false;
    const int n = stitch->num_inputs() / 2;
    places_ = Partition(*stitch, 0, n);
    if (places_ == nullptr || NumUsers(*places_) != static_cast<size_t>(n)) return false;
    for (int i = 0; i < n; ++i) {
      if (!AreOutputOf(*places_, InputOf(*stitch, i), i)) return false;
      Node* gather = InputOf(*stitch, n + i)->src();
      if (!IsPlainGather(*gather) || NumUsers(*gather) != 1) return false;
      if (i == 0) rows_ = Partition(*gather, 1, n);
      if (rows_ == nullptr || !AreOutputOf(*rows_, InputOf(*gather, 1), i)) return false;
      gathers_.push_back(gather);
    }
    if (NumUsers(*rows_) != static_cast<size_t>(n)) return false;
    partition_ = expression_.Add(*places_, 1);
    row_ = expression_.Add(*rows_, 0);
    return AreSame(InputOf(*places_, 1), InputOf(*rows_, 1)) && partition_.has_value() &&
           row_.has_value() && expression_.IsOfElement(*partition_) &&
           expression_.IsOfElement(*row_) && CountsElements();
  }

  void Replace(Graph* graph) {
    const Edge* const ids = expression_.element();
    tensorflow::NodeDef def;
    def.set_name(stitch_->name());
    def.set_op(PartitionedGatherName());
    def.set_device(stitch_->def().device());
    auto& attrs = *def.mutable_attr();
    attrs["N"].set_i(static_cast<int64_t>(gathers_.size()));
    attrs["T"].set_type(stitch_->output_type(0));
    attrs["Tids"].set_type(ids->src()->output_type(ids->src_output()));
    for (const int64_t number : expression_.Save()) {
      attrs["expression"].mutable_list()->add_i(number);
    }
    attrs["partition"].set_i(*partition_);
    attrs["row"].set_i(*row_);
    def.add_input(absl::StrCat(ids->src()->name(), ":", ids->src_output()));
    for (const Node* gather : gathers_) {
      const Edge* table = InputOf(*gather, 0);
      def.add_input(absl::StrCat(table->src()->name(), ":", table->src_output()));
    }
    absl::Status added;
    Node* const made = graph->AddNode(std::move(def), &added);
    // What is there works, too.
    if (!added.ok()) return;
    made->set_assigned_device_name(stitch_->assigned_device_name());
    graph->AddEdge(ids->src(), ids->src_output(), made, 0);
    for (size_t i = 0; i < gathers_.size(); ++i) {
      const Edge* table = InputOf(*gathers_[i], 0);
      graph->AddEdge(table->src(), table->src_output(), made, static_cast<int>(i) + 1);
    }
    const std::vector<const Edge*> users(stitch_->out_edges().begin(), stitch_->out_edges().end());
    for (const Edge* user : users) {
      graph->AddEdge(made, user->src_output(), user->dst(), user->dst_input());
      graph->RemoveEdge(user);
    }
    graph->RemoveNode(stitch_);
    for (Node* gather : gathers_) graph->RemoveNode(gather);
    RemoveUnused(graph, {places_, rows_});
  }

 private:
  // The DynamicPartition whose first output is an input of a node.
  static Node* Partition(const Node& node, int input, int n) {
    const Edge* edge = InputOf(node, input);
    if (edge == nullptr || edge->src_output() != 0) return nullptr;
    Node* partition = edge->src();
    const bool is = partition->type_string() == "DynamicPartition" &&
                    partition->num_outputs() == n && !WaitsForOthers(*partition);
    return is ? partition : nullptr;
  }

  static bool AreOutputOf(const Node& node, const Edge* edge, int output) {
    return edge != nullptr && edge->src() == &node && edge->src_output() == output;
  }

  // Whether the places are 0, 1, 2, ... as many as there are ids.
  bool CountsElements() const {
    const Node& range = *InputOf(*places_, 0)->src();
    if (range.type_string() != "Range" || !IsConstant(range, 0, 0) || !IsConstant(range, 2, 1) ||
        WaitsForOthers(range)) {
      return false;
    }
    const Node& size = *InputOf(range, 1)->src();
    return size.type_string() == "Size" && !WaitsForOthers(size) &&
           AreSame(InputOf(size, 0), expression_.element());
  }

  // Removes nodes without users, and what only they used.
  static void RemoveUnused(Graph* graph, std::set<Node*> nodes) {
    while (!nodes.empty()) {
      Node* const node = *nodes.begin();
      nodes.erase(nodes.begin());
      const std::string& op = node->type_string();
      const bool is_part = op == "DynamicPartition" || op == "Range" || op == "Size" ||
                           IntegerExpression::CanDo(*node);
      if (!is_part || NumUsers(*node) > 0) continue;
      for (const Edge* edge : node->in_edges()) {
        if (!edge->src()->IsSource()) nodes.insert(edge->src());
      }
      graph->RemoveNode(node);
    }
  }

  Node* stitch_ = nullptr;
  Node* places_ = nullptr;
  Node* rows_ = nullptr;
  std::vector<Node*> gathers_;
  IntegerExpression expression_;
  std::optional<int> partition_;
  std::optional<int> row_;
};

}  // namespace

void FusePartitionedLookups(Graph* graph) {
  // Other nodes may be gone when it is their turn.
  std::vector<Node*> stitches;
  for (Node* node : graph->op_nodes()) {
    const std::string& op = node->type_string();
    if (op == "DynamicStitch" || op == "ParallelDynamicStitch") stitches.push_back(node);
  }
  for (Node* stitch : stitches) {
    Lookup lookup;
    if (lookup.Find(stitch)) lookup.Replace(graph);
  }
}

}  // namespace session_group
