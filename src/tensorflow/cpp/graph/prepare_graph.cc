#include "graph/prepare_graph.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "graph/split_gathers.h"
#include "tensorflow/core/framework/op.h"

namespace session_group {
namespace {

// Gives tables a shared_name. Without one, TensorFlow gives a table a name that is private to its
// kernel, and kernels are private to their session, so that the other sessions would not find a
// table that one session initialised. A name made of the node's name is unique within the group,
// because node names are unique in a graph. Function bodies are left alone, because node names are
// not unique across functions.
void ShareTables(tensorflow::GraphDef* graph) {
  for (tensorflow::NodeDef& node : *graph->mutable_node()) {
    const tensorflow::OpDef* op = nullptr;
    if (!tensorflow::OpRegistry::Global()->LookUpOpDef(node.op(), &op).ok()) continue;
    const auto& attrs = op->attr();
    // Only tables have this attribute, which says what an empty shared_name means.
    const bool is_table = std::any_of(attrs.begin(), attrs.end(), [](const auto& attr) {
      return attr.name() == "use_node_name_sharing";
    });
    if (!is_table) continue;
    const auto by_node_name = node.attr().find("use_node_name_sharing");
    if (by_node_name != node.attr().end() && by_node_name->second.b()) continue;
    std::string* shared_name = (*node.mutable_attr())["shared_name"].mutable_s();
    if (shared_name->empty()) *shared_name = absl::StrCat("session_group/", node.name());
  }
}

// An iterator runs functions on the device and the threads of the session that made it, even in the
// background. If other sessions held it, it would outlive that session.
absl::Status RefuseSharedIterators(
    const tensorflow::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes) {
  for (const tensorflow::NodeDef& node : nodes) {
    const auto shared_name = node.attr().find("shared_name");
    if (absl::StrContains(node.op(), "Iterator") && shared_name != node.attr().end() &&
        !shared_name->second.s().empty()) {
      return absl::UnimplementedError(absl::StrCat(
          "node ", node.name(), " (", node.op(), ") is an iterator with the shared_name \"",
          shared_name->second.s(),
          "\", which the sessions of a group can't share: feed tensors instead, or remove the "
          "shared_name to give each session its own iterator"));
    }
  }
  return absl::OkStatus();
}

// TensorFlow's optimisers end the process if a required attribute is missing.
absl::Status CheckAttributes(
    const tensorflow::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes) {
  for (const tensorflow::NodeDef& node : nodes) {
    const tensorflow::OpDef* op = nullptr;
    // TensorFlow itself refuses operations that it does not know.
    if (!tensorflow::OpRegistry::Global()->LookUpOpDef(node.op(), &op).ok()) continue;
    for (const tensorflow::OpDef::AttrDef& attr : op->attr()) {
      if (!attr.has_default_value() && !node.attr().contains(attr.name())) {
        return absl::InvalidArgumentError(absl::StrCat("node ", node.name(), " (", node.op(),
                                                       ") has no attribute ", attr.name(),
                                                       ": export the model again"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNodes(const tensorflow::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes) {
  absl::Status status = CheckAttributes(nodes);
  return status.ok() ? RefuseSharedIterators(nodes) : status;
}

}  // namespace

absl::Status PrepareGraph(tensorflow::GraphDef* graph) {
  absl::Status status = CheckNodes(graph->node());
  for (const tensorflow::FunctionDef& function : graph->library().function()) {
    status.Update(CheckNodes(function.node_def()));
  }
  if (!status.ok()) return status;
  ShareTables(graph);
  SplitGathers(graph);
  return status;
}

}  // namespace session_group
