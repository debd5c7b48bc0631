#include "graph/references.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "graph/reference_variables.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/tensor_shape.h"
#include "tensorflow/core/graph/tensor_id.h"

namespace session_group {
namespace {

using tensorflow::GraphDef;
using tensorflow::NodeDef;
using tensorflow::TensorId;

bool IsReferenceVariable(const NodeDef& node) {
  return node.op() == "VariableV2" || node.op() == "Variable";
}

// What an attribute says; empty without it.
std::string TextOf(const NodeDef& node, const char* attr) {
  const auto found = node.attr().find(attr);
  return found == node.attr().end() ? std::string() : found->second.s();
}

// The types of a node's inputs; none if it calls a function, or if inputs are missing.
std::vector<tensorflow::DataType> InputTypes(const NodeDef& node) {
  const tensorflow::OpDef* op = nullptr;
  tensorflow::DataTypeVector types;
  if (!tensorflow::OpRegistry::Global()->LookUpOpDef(node.op(), &op).ok() ||
      !tensorflow::InputTypesForNode(node, *op, &types).ok() ||
      static_cast<int>(types.size()) > node.input_size()) {
    return {};
  }
  return {types.begin(), types.end()};
}

// An assignment may change the shape of a variable only if it says so.
bool ChangesShape(const NodeDef& node) {
  const auto validates = node.attr().find("validate_shape");
  return node.op() == "Assign" && validates != node.attr().end() && !validates->second.b();
}

bool IsWrite(const NodeDef& node) {
  return node.op() == "Assign" || absl::EndsWith(node.name(), kWrite);
}

bool HasReferenceVariable(const tensorflow::FunctionDefLibrary& library) {
  for (const auto& function : library.function()) {
    for (const NodeDef& node : function.node_def()) {
      if (IsReferenceVariable(node)) return true;
    }
  }
  return false;
}

// Whether there are kernels for resource variables of a type, as there are for reference variables.
bool IsNumber(tensorflow::DataType type) {
  switch (type) {
    case tensorflow::DT_BOOL:
    case tensorflow::DT_INT8:
    case tensorflow::DT_INT16:
    case tensorflow::DT_INT32:
    case tensorflow::DT_INT64:
    case tensorflow::DT_UINT8:
    case tensorflow::DT_UINT16:
    case tensorflow::DT_UINT32:
    case tensorflow::DT_UINT64:
    case tensorflow::DT_HALF:
    case tensorflow::DT_BFLOAT16:
    case tensorflow::DT_FLOAT:
    case tensorflow::DT_DOUBLE:
    case tensorflow::DT_COMPLEX64:
    case tensorflow::DT_COMPLEX128:
      return true;
    default:
      return false;
  }
}

// Why a variable has to stay one, whoever uses it; empty if nothing of its own says so.
std::string OwnObstacle(const NodeDef& node, const ReferenceVariable& variable) {
  // Those of a loop or a branch are there only where that runs.
  if (node.input_size() > 0) return "its node waits for others";
  tensorflow::PartialTensorShape shape;
  const bool is_old = node.op() == "Variable" && variable.shape.dim_size() == 0;
  if (is_old || !node.attr().at("shape").has_shape() ||
      !tensorflow::PartialTensorShape::BuildPartialTensorShape(variable.shape, &shape).ok() ||
      !shape.IsFullyDefined()) {
    return "its shape is not known";
  }
  // These need not be initialised.
  if (shape.num_elements() == 0) return "it has no elements";
  return IsNumber(variable.dtype) ? "" : "of its type";
}

}  // namespace

const char* OnResource(absl::string_view op) {
  if (op == "Assign") return "AssignVariableOp";
  if (op == "IsVariableInitialized") return "VarIsInitializedOp";
  return nullptr;
}

ResourceName ResourceOf(const NodeDef& variable) {
  const std::string shared_name = TextOf(variable, "shared_name");
  return {TextOf(variable, "container"), shared_name.empty() ? variable.name() : shared_name};
}

References::References(const std::vector<const GraphDef*>& earlier, const GraphDef& graph)
    : earlier_(earlier), graph_(graph) {
  FindVariables();
  if (variables_.empty()) return;
  for (const GraphDef* before : earlier_) FindConsumers(*before, true);
  FindConsumers(graph_, false);
  FindWhatFollowsWrites();
  for (auto& [name, variable] : variables_) FindUses(&variable);
  KeepWhatSharesMemory();
}

void References::FindVariables() {
  bool in_functions = HasReferenceVariable(graph_.library());
  for (const GraphDef* graph : earlier_) {
    in_functions |= HasReferenceVariable(graph->library());
    for (const NodeDef& node : graph->node()) {
      absl::string_view name = node.name();
      if (node.op() != "VarHandleOp" || !absl::ConsumeSuffix(&name, kHandle)) continue;
      ReferenceVariable& variable = variables_[std::string(name)];
      variable.name = std::string(name);
      variable.dtype = node.attr().at("dtype").type();
      variable.shape = node.attr().at("shape").shape();
    }
  }
  for (int i = 0; i < graph_.node_size(); ++i) {
    const NodeDef& node = graph_.node(i);
    if (!IsReferenceVariable(node)) continue;
    ReferenceVariable& variable = variables_[node.name()];
    variable.name = node.name();
    variable.node = i;
    variable.dtype = node.attr().at("dtype").type();
    variable.shape = node.attr().at("shape").shape();
    variable.obstacle = in_functions ? "functions have some, too" : OwnObstacle(node, variable);
  }
}

void References::FindConsumers(const GraphDef& graph, bool is_earlier) {
  for (int i = 0; i < graph.node_size(); ++i) {
    const NodeDef& node = graph.node(i);
    names_.insert(node.name());
    for (int input = 0; input < node.input_size(); ++input) {
      const TensorId id = tensorflow::ParseTensorName(node.input(input));
      consumers_[std::string(id.node())].push_back(
          {&node, is_earlier ? -1 : i, id.index() < 0 ? -1 : input, id.index()});
    }
  }
}

const std::vector<References::Consumer>& References::ConsumersOf(const std::string& node) const {
  static const auto* const none = new std::vector<Consumer>();
  const auto found = consumers_.find(node);
  return found == consumers_.end() ? *none : found->second;
}

void References::FindWhatFollowsWrites() {
  std::vector<const NodeDef*> nodes;
  const auto add_writes = [&](const GraphDef& graph) {
    for (const NodeDef& node : graph.node()) {
      if (IsWrite(node)) nodes.push_back(&node);
    }
  };
  for (const GraphDef* graph : earlier_) add_writes(*graph);
  add_writes(graph_);
  while (!nodes.empty()) {
    const NodeDef* const node = nodes.back();
    nodes.pop_back();
    for (const Consumer& consumer : ConsumersOf(node->name())) {
      if (follows_writes_.insert(consumer.node).second) nodes.push_back(consumer.node);
    }
  }
}

void References::FindUses(ReferenceVariable* variable) {
  if (variable->node >= 0 && names_.count(absl::StrCat(variable->name, kHandle)) > 0) {
    variable->obstacle = "a name that it would need is taken";
  }
  for (const Consumer& write : ConsumersOf(absl::StrCat(variable->name, kHandle))) {
    absl::string_view assign = write.node->name();
    if (write.place >= 0 || !absl::ConsumeSuffix(&assign, kWrite)) continue;
    for (const Consumer& user : ConsumersOf(std::string(assign))) {
      if (user.place >= 0 && TakesReference(user)) {
        variable->obstacle = absl::StrCat("node ", user.node->name(), " takes a reference to it");
      }
    }
  }
  for (const Consumer& consumer : ConsumersOf(variable->name)) {
    if (consumer.place < 0) continue;
    if (consumer.input < 0) {
      // Its node reads, which fails before there is a value.
      if (variable->node >= 0) variable->obstacle = "other nodes wait for its own";
      continue;
    }
    const std::string obstacle = ObstacleOf(*variable, consumer);
    if (!obstacle.empty()) variable->obstacle = obstacle;
    if (consumer.input == 0 && OnResource(consumer.node->op()) != nullptr) {
      variable->operations.push_back(consumer.place);
    }
  }
}

bool References::TakesReference(const Consumer& consumer) {
  const std::vector<tensorflow::DataType> types = InputTypes(*consumer.node);
  return consumer.input >= 0 && consumer.input < static_cast<int>(types.size()) &&
         tensorflow::IsRefType(types[consumer.input]);
}

std::string References::ObstacleOf(const ReferenceVariable& variable,
                                   const Consumer& consumer) const {
  const NodeDef& node = *consumer.node;
  const std::string who = absl::StrCat("node ", node.name(), " (", node.op(), ")");
  const std::vector<tensorflow::DataType> types = InputTypes(node);
  if (types.size() <= static_cast<size_t>(consumer.input)) {
    return absl::StrCat(who, " may write it");
  }
  // TensorFlow says what is wrong with that.
  if (consumer.output > 0 || tensorflow::BaseType(types[consumer.input]) != variable.dtype) {
    return absl::StrCat(who, " takes something else");
  }
  if (!tensorflow::IsRefType(types[consumer.input])) {
    // The variable's node reads it once in a request, when that begins.
    return follows_writes_.count(&node) == 0 ? "" : absl::StrCat(who, " reads it after a write");
  }
  if (consumer.input != 0 || OnResource(node.op()) == nullptr) {
    return absl::StrCat(who, " takes a reference to it");
  }
  if (ChangesShape(node)) return absl::StrCat(who, " may change its shape");
  for (const char* added : {kWrite, kValue, kCopy}) {
    if (names_.count(absl::StrCat(node.name(), added)) > 0) {
      return "a name that it would need is taken";
    }
  }
  if (node.op() != "Assign") return "";
  for (const Consumer& user : ConsumersOf(node.name())) {
    if (user.input >= 0) return absl::StrCat(who, " hands a reference on");
  }
  return "";
}

void References::KeepWhatSharesMemory() {
  std::map<ResourceName, std::vector<std::string>> users;
  const auto find = [&](const GraphDef& graph) {
    for (const NodeDef& node : graph.node()) {
      absl::string_view name = node.name();
      if (IsReferenceVariable(node)) {
        users[ResourceOf(node)].push_back(node.name());
      } else if (node.op() == "VarHandleOp" && absl::ConsumeSuffix(&name, kHandle)) {
        users[{TextOf(node, "container"), OldName(TextOf(node, "shared_name"))}].emplace_back(name);
      }
    }
  };
  for (const GraphDef* graph : earlier_) find(*graph);
  find(graph_);
  for (int i = 0; i < graph_.node_size(); ++i) {
    if (!IsReferenceVariable(graph_.node(i))) continue;
    const std::vector<std::string>& sharing = users[ResourceOf(graph_.node(i))];
    if (sharing.size() < 2) continue;
    for (const std::string& name : sharing) {
      const auto variable = variables_.find(name);
      if (variable != variables_.end()) variable->second.obstacle = "another shares its memory";
    }
  }
}

}  // namespace session_group
