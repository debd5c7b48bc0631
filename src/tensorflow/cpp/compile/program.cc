#include "compile/program.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compile/effects.h"
#include "compile/graph_capture.h"
#include "compile/partitioned_lookups.h"
#include "graph/hidden_constants.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/graph/tensor_id.h"

namespace session_group {
namespace {

using tensorflow::Graph;
using tensorflow::Node;
using tensorflow::Tensor;

bool AnyRef(const tensorflow::DataTypeVector& types) {
  return std::any_of(types.begin(), types.end(), [](auto t) { return tensorflow::IsRefType(t); });
}

// Why one thread can't run a node in a fixed order; empty if it can.
std::string Obstacle(const Node& node) {
  if (node.IsSend() || node.IsRecv() || node.IsHostSend() || node.IsHostRecv()) {
    return "several devices";
  }
  if (node.IsCollective()) return "a collective operation";
  if (AnyRef(node.input_types()) || AnyRef(node.output_types())) return "a ref variable";
  if (node.IsArg() && node.output_type(0) == tensorflow::DT_RESOURCE) return "a fed resource";
  return "";
}

std::string FirstObstacle(const Graph& graph) {
  for (const Node* node : graph.op_nodes()) {
    const std::string obstacle = Obstacle(*node);
    if (!obstacle.empty()) return absl::StrCat(obstacle, " (node ", node->name(), ")");
  }
  return "";
}

}  // namespace

absl::Status Program::Compile(tensorflow::Session* compiler, const GraphDefs& graphs,
                              const tensorflow::CallableOptions& callable, bool fuse_lookups,
                              ConstantStore* constants, std::unique_ptr<Program>* program) {
  GraphCapture capture;
  tensorflow::Session::CallableHandle handle;
  absl::Status made = compiler->MakeCallable(callable, &handle);
  if (made.ok()) made = compiler->ReleaseCallable(handle);
  if (!made.ok()) return made;

  std::unique_ptr<Program> result(new Program);
  result->feeds_.assign(callable.feed().begin(), callable.feed().end());
  result->num_fetches_ = callable.fetch_size();
  const tensorflow::DeviceMgr* devices;
  absl::Status found = compiler->LocalDeviceManager(&devices);
  if (!found.ok()) return found;
  std::string& obstacle = result->obstacle_;
  if (capture.graphs().size() != 1) {
    obstacle = "several devices";
  } else if (capture.devices()[0] != devices->HostCPU()) {
    obstacle = absl::StrCat("the device ", capture.devices()[0]->name());
  }
  Effects all;
  bool has_loop = false;
  for (size_t i = 0; i < capture.graphs().size(); ++i) {
    const Graph& graph = *capture.graphs()[i];
    const bool on_cpu = capture.devices()[i] == devices->HostCPU();
    const GraphEffects effects = EffectsOf(graph);
    // The nodes of a function may be placed on any device.
    result->writes_elsewhere_ |= effects.functions.writes || (effects.nodes.writes && !on_cpu);
    all.Add(effects.nodes);
    all.Add(effects.functions);
    const auto nodes = graph.op_nodes();
    has_loop |= std::any_of(nodes.begin(), nodes.end(), [](auto* n) { return n->IsEnter(); });
    if (obstacle.empty()) obstacle = FirstObstacle(graph);
  }
  result->writes_ = all.writes;
  result->recurses_ = has_loop && all.calls;
  if (obstacle.empty() && !all.state.empty()) {
    obstacle = absl::StrCat("state in a kernel (", all.state, ")");
  }
  if (obstacle.empty()) {
    if (fuse_lookups) FusePartitionedLookups(capture.graphs()[0].get());
    absl::Status analysed = ControlFlow::Analyse(*capture.graphs()[0], &result->control_flow_);
    if (!analysed.ok()) obstacle = std::string(analysed.message());
  }
  if (obstacle.empty()) {
    result->graph_ = std::move(capture.graphs()[0]);
    result->FindFeedTypes(graphs);
    absl::Status taken = result->TakeConstants(constants);
    if (!taken.ok()) return taken;
  }
  *program = std::move(result);
  return absl::OkStatus();
}

// From the original graphs, because optimising removes feeds that nothing depends on.
void Program::FindFeedTypes(const GraphDefs& graphs) {
  for (const std::string& feed : feeds_) {
    const tensorflow::TensorId id = tensorflow::ParseTensorName(feed);
    tensorflow::DataType type = tensorflow::DT_INVALID;
    for (const tensorflow::GraphDef* graph : graphs) {
      for (const tensorflow::NodeDef& node : graph->node()) {
        if (node.name() != id.node()) continue;
        const tensorflow::OpDef* op = nullptr;
        tensorflow::DataTypeVector types;
        if (graph_->op_registry()->LookUpOpDef(node.op(), &op).ok() &&
            tensorflow::OutputTypesForNode(node, *op, &types).ok() && id.index() >= 0 &&
            id.index() < static_cast<int>(types.size())) {
          type = types[id.index()];
        }
      }
    }
    feed_types_.push_back(type);
  }
}

absl::Status Program::GetKernel(const Node& node, MakeKernel make,
                                std::vector<std::shared_ptr<tensorflow::OpKernel>>* kernels,
                                tensorflow::OpKernel** kernel) {
  std::lock_guard<std::mutex> lock(mu_);
  std::shared_ptr<tensorflow::OpKernel>& shared = kernels_[node.id()];
  if (shared == nullptr) {
    absl::Status made = make(&shared);
    if (!made.ok()) return made;
  }
  kernels->push_back(shared);
  *kernel = shared.get();
  return absl::OkStatus();
}

KernelChoice* Program::choice(const Node& node) {
  std::lock_guard<std::mutex> lock(mu_);
  std::unique_ptr<KernelChoice>& choice = choices_[node.id()];
  if (choice == nullptr) choice = std::make_unique<KernelChoice>();
  return choice.get();
}

std::vector<Program::Chosen> Program::chosen() const {
  std::lock_guard<std::mutex> lock(mu_);
  std::vector<Chosen> chosen;
  for (const auto& [id, choice] : choices_) {
    for (int size = 0; size < KernelChoice::kSizes; ++size) {
      const KernelChoice::Decision decision = choice->decision(size);
      if (decision == KernelChoice::kOpen) continue;
      chosen.push_back(
          {graph_->FindNodeId(id)->name(), int64_t{1} << size, decision == KernelChoice::kOther});
    }
  }
  return chosen;
}

absl::Status Program::TakeConstants(ConstantStore* constants) {
  for (Node* node : graph_->op_nodes()) {
    const std::string& op = node->type_string();
    Tensor value;
    if (op == "Const" || op == "HostConst") {
      const tensorflow::TensorProto* proto;
      absl::Status found = tensorflow::GetNodeAttr(node->attrs(), "value", &proto);
      if (!found.ok()) return found;
      found = constants->FromProto(*proto, &value);
      if (!found.ok()) return tensorflow::AttachDef(found, node->def());
      // The node does not need the value any more, which may be large.
      tensorflow::TensorProto nothing;
      nothing.set_dtype(proto->dtype());
      node->ClearAttr("value");
      node->AddAttr("value", nothing);
    } else if (op == HiddenConstantName()) {
      absl::Status found = FindHiddenConstant(node->attrs(), &value);
      if (!found.ok()) return tensorflow::AttachDef(found, node->def());
    } else {
      continue;
    }
    constant_bytes_ += value.TotalBytes();
    constants_.emplace(node->id(), std::move(value));
  }
  return absl::OkStatus();
}

}  // namespace session_group
