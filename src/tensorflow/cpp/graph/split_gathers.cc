#include "graph/split_gathers.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/platform/protobuf.h"

namespace session_group {
namespace {

using tensorflow::NodeDef;

bool CanSplit(const NodeDef& node) {
  if (node.op() != "ResourceGather" || node.input_size() < 2) return false;
  const auto batch_dims = node.attr().find("batch_dims");
  return batch_dims == node.attr().end() || batch_dims->second.i() == 0;
}

// `value` is the suffix of an input that names the output of a ReadVariableOp.
void Split(tensorflow::protobuf::RepeatedPtrField<NodeDef>* nodes, const char* value) {
  const int n = nodes->size();
  for (int i = 0; i < n; ++i) {
    NodeDef* node = nodes->Mutable(i);
    if (!CanSplit(*node)) continue;
    NodeDef* read = nodes->Add();
    node = nodes->Mutable(i);  // Adding may have moved it.
    read->set_name(absl::StrCat(node->name(), "/session_group_read"));
    read->set_op("ReadVariableOp");
    read->set_device(node->device());
    read->add_input(node->input(0));
    auto& attrs = *node->mutable_attr();
    (*read->mutable_attr())["dtype"] = attrs["dtype"];
    // The control inputs of the gather must run before the read.
    for (int input = 2; input < node->input_size(); ++input) read->add_input(node->input(input));
    if (const auto colocated = attrs.find("_class"); colocated != attrs.end()) {
      (*read->mutable_attr())["_class"] = colocated->second;
    }

    node->set_op("Gather");
    node->set_input(0, absl::StrCat(read->name(), value));
    attrs["Tparams"] = attrs["dtype"];
    attrs.erase("dtype");
    attrs.erase("batch_dims");
  }
}

}  // namespace

void SplitGathers(tensorflow::GraphDef* graph) {
  Split(graph->mutable_node(), "");
  for (auto& function : *graph->mutable_library()->mutable_function()) {
    Split(function.mutable_node_def(), ":value:0");
  }
}

}  // namespace session_group
