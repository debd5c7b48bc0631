// Reads graphs and SavedModels for sessions.
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "abi/convert.h"
#include "abi/handles.h"
#include "abi/shim.h"
#include "devices/virtual_gpus.h"
#include "graph/prepare_graph.h"
#include "graph/reference_variables.h"
#include "restore/required_checkpoint.h"
#include "tensorflow/cc/saved_model/reader.h"

using session_group::Caught;
using session_group::FillBuffer;
using session_group::Guard;
using session_group::Parse;
using session_group::PrepareGraph;
using session_group::String;
using session_group::Strings;

sg_graph* sg_graph_parse(const void* graph_def, size_t size, TF_Status* status) {
  std::unique_ptr<sg_graph> graph;
  Guard(status, [&]() -> absl::Status {
    graph = std::make_unique<sg_graph>();
    absl::Status parsed =
        Parse(graph_def, size, "graph_def",
              "keep weights in variables, or load them from a SavedModel", &graph->def);
    if (!parsed.ok()) return parsed;
    if (graph->def.node_size() == 0) {
      return absl::InvalidArgumentError("graph_def has no nodes: pass the GraphDef of a model");
    }
    return PrepareGraph(&graph->def);
  });
  return TF_GetCode(status) == TF_OK ? graph.release() : nullptr;
}

void sg_graph_convert_variables(sg_graph* graph, const sg_graph* const* earlier, size_t nearlier,
                                TF_Status* status) {
  Guard(status, [&] {
    std::vector<const tensorflow::GraphDef*> graphs;
    for (size_t i = 0; i < nearlier; ++i) graphs.push_back(&earlier[i]->def);
    return session_group::ConvertReferenceVariables(graphs, &graph->def);
  });
}

void sg_graph_hide_constants(sg_graph* graph, sg_devices* devices, TF_Status* status) {
  Guard(status, [&]() -> absl::Status {
    if (devices->devices.size() != 1 || !devices->gpus.empty()) return absl::OkStatus();
    return graph->constants.Hide(&graph->def, &devices->constants);
  });
}

int32_t sg_graph_can_reveal(const sg_graph* graph) { return graph->constants.can_reveal() ? 1 : 0; }

int32_t sg_graph_outputs(const sg_graph* graph, sg_str node) {
  int32_t outputs = session_group::NodeIndex::kUnknown;
  // If there is no memory for the index, TensorFlow checks the name when it runs the request.
  Caught([&]() -> absl::Status {
    outputs = graph->nodes.Outputs(graph->def, {node.data, node.size});
    return absl::OkStatus();
  }).IgnoreError();
  return outputs;
}

void sg_graph_check(const sg_graph* graph, const sg_devices* devices, TF_Status* status) {
  Guard(status, [&] {
    return devices->gpus.empty() ? absl::OkStatus()
                                 : session_group::VirtualGpus::CheckGraph(graph->def);
  });
}

void sg_graph_delete(sg_graph* graph) { delete graph; }

sg_saved_model* sg_saved_model_read(sg_str export_dir, const sg_str* tags, size_t ntags,
                                    TF_Buffer* meta_graph_def, TF_Status* status) {
  std::unique_ptr<sg_saved_model> model;
  Guard(status, [&]() -> absl::Status {
    model = std::make_unique<sg_saved_model>();
    model->export_dir = String(export_dir);
    const std::vector<std::string> names = Strings(tags, ntags);
    const std::unordered_set<std::string> tag_set(names.begin(), names.end());
    absl::Status read =
        tensorflow::ReadMetaGraphDefFromSavedModel(model->export_dir, tag_set, &model->meta_graph);
    if (!read.ok()) return read;
    if (meta_graph_def != nullptr) {
      absl::Status filled = FillBuffer(model->meta_graph, meta_graph_def);
      if (!filled.ok()) return filled;
    }
    // Who restores in another way needs none.
    model->has_checkpoint =
        session_group::CheckRequiredCheckpoint(model->meta_graph, model->export_dir);
    // Restoring needs everything in the MetaGraphDef except for the graph, and the sessions need
    // only the graph.
    model->graph = std::make_unique<sg_graph>();
    model->graph->def.Swap(model->meta_graph.mutable_graph_def());
    model->meta_graph.clear_graph_def();
    return PrepareGraph(&model->graph->def);
  });
  return TF_GetCode(status) == TF_OK ? model.release() : nullptr;
}

sg_graph* sg_saved_model_take_graph(sg_saved_model* model) { return model->graph.release(); }

void sg_saved_model_delete(sg_saved_model* model) { delete model; }
