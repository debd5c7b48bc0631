#include "restore/required_checkpoint.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "tensorflow/cc/saved_model/constants.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/node_def.pb.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/platform/path.h"
#include "tensorflow/core/util/tensor_bundle/naming.h"

namespace session_group {
namespace {

using tensorflow::NodeDef;

// TensorFlow 2 writes this into every checkpoint, also into one without variables.
constexpr char kObjectGraph[] = "_CHECKPOINTABLE_OBJECT_GRAPH";

using Nodes = absl::flat_hash_map<absl::string_view, const NodeDef*>;

// The node that an input comes from: `node`, `node:1`, `^node` or, in a function, `node:output:1`.
absl::string_view NodeOf(absl::string_view input) {
  input = absl::StripPrefix(input, "^");
  return input.substr(0, input.find(':'));
}

template <typename List>
Nodes ByName(const List& list) {
  Nodes nodes;
  for (const NodeDef& node : list) nodes[node.name()] = &node;
  return nodes;
}

// The checkpoint key that a RestoreV2 reads, or that it reads one at all if its names are no
// constant.
std::string KeyOf(const NodeDef& restore, const Nodes& nodes) {
  if (restore.input_size() < 2) return "";
  const auto names = nodes.find(NodeOf(restore.input(1)));
  if (names == nodes.end() || names->second->op() != "Const") return restore.name();
  const auto value = names->second->attr().find("value");
  tensorflow::Tensor tensor;
  if (value == names->second->attr().end() || !tensor.FromProto(value->second.tensor()) ||
      tensor.dtype() != tensorflow::DT_STRING) {
    return restore.name();
  }
  const auto keys = tensor.flat<tensorflow::tstring>();
  for (int64_t i = 0; i < keys.size(); ++i) {
    if (keys(i) != kObjectGraph) return std::string(keys(i));
  }
  return "";
}

// Looks for a checkpoint key among what a graph's node needs, and in the functions that it calls.
class Search {
 public:
  explicit Search(const tensorflow::GraphDef& graph) : graph_(graph) {
    for (const tensorflow::FunctionDef& function : graph.library().function()) {
      functions_[function.signature().name()] = &function;
    }
  }

  std::string From(absl::string_view name) {
    const Nodes nodes = ByName(graph_.node());
    absl::flat_hash_set<absl::string_view> seen = {name};
    std::vector<absl::string_view> open = {name};
    while (!open.empty()) {
      const auto node = nodes.find(open.back());
      open.pop_back();
      if (node == nodes.end()) continue;
      std::string key = Node(*node->second, nodes);
      if (!key.empty()) return key;
      for (const std::string& input : node->second->input()) {
        const absl::string_view from = NodeOf(input);
        if (seen.insert(from).second) open.push_back(from);
      }
    }
    return InFunctions();
  }

 private:
  std::string Node(const NodeDef& node, const Nodes& nodes) {
    if (node.op() == "RestoreV2") return KeyOf(node, nodes);
    Call(node.op());
    for (const auto& [name, value] : node.attr()) {
      if (value.has_func()) Call(value.func().name());
      for (const auto& function : value.list().func()) Call(function.name());
    }
    return "";
  }

  void Call(const std::string& name) {
    const auto function = functions_.find(name);
    if (function != functions_.end() && called_.insert(name).second) {
      to_search_.push_back(function->second);
    }
  }

  std::string InFunctions() {
    while (!to_search_.empty()) {
      const tensorflow::FunctionDef* function = to_search_.back();
      to_search_.pop_back();
      const Nodes nodes = ByName(function->node_def());
      for (const NodeDef& node : function->node_def()) {
        std::string key = Node(node, nodes);
        if (!key.empty()) return key;
      }
    }
    return "";
  }

  const tensorflow::GraphDef& graph_;
  absl::flat_hash_map<std::string, const tensorflow::FunctionDef*> functions_;
  absl::flat_hash_set<std::string> called_;
  std::vector<const tensorflow::FunctionDef*> to_search_;
};

}  // namespace

absl::Status CheckRequiredCheckpoint(const tensorflow::MetaGraphDef& meta_graph,
                                     const std::string& export_dir) {
  const std::string& restore_op = meta_graph.saver_def().restore_op_name();
  if (restore_op.empty()) return absl::OkStatus();
  const std::string prefix =
      tensorflow::io::JoinPath(export_dir, tensorflow::kSavedModelVariablesDirectory,
                               tensorflow::kSavedModelVariablesFilename);
  const std::string index = tensorflow::MetaFilename(prefix);
  if (tensorflow::Env::Default()->FileExists(index).ok()) return absl::OkStatus();
  const std::string key = Search(meta_graph.graph_def()).From(NodeOf(restore_op));
  if (key.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("the model's variables, such as ", key,
                                          ", are in a checkpoint that is not there: ", index,
                                          " is missing; copy the whole folder of the SavedModel"));
}

}  // namespace session_group
