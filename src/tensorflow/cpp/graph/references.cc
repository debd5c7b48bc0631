#include "graph/references.h"

#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "graph/reference_variables.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/graph/tensor_id.h"

namespace session_group {
namespace {

using tensorflow::GraphDef;
using tensorflow::NodeDef;
using tensorflow::TensorId;

bool IsReferenceVariable(const NodeDef& node) {
  return node.op() == "VariableV2" || node.op() == "Variable";
}

std::string Text(const NodeDef& node, const char* attr) {
  const auto found = node.attr().find(attr);
  return found == node.attr().end() ? std::string() : found->second.s();
}

// The types of a node's inputs; none if it calls a function, or if inputs are missing.
tensorflow::DataTypeVector InputTypes(const NodeDef& node) {
  const tensorflow::OpDef* op = nullptr;
  tensorflow::DataTypeVector types;
  if (!tensorflow::OpRegistry::Global()->LookUpOpDef(node.op(), &op).ok() ||
      !tensorflow::InputTypesForNode(node, *op, &types).ok() ||
      static_cast<int>(types.size()) > node.input_size()) {
    return {};
  }
  return types;
}

// Operations of functions have names of their own, but the same memory.
bool HasReferenceVariable(const tensorflow::FunctionDefLibrary& library) {
  for (const auto& function : library.function()) {
    for (const NodeDef& node : function.node_def()) {
      if (IsReferenceVariable(node)) return true;
    }
  }
  return false;
}

}  // namespace

const char* OnResource(absl::string_view op) {
  static const auto* const ops = new std::unordered_map<absl::string_view, const char*>{
      {"Assign", "AssignVariableOp"},
      {"AssignAdd", "AssignAddVariableOp"},
      {"AssignSub", "AssignSubVariableOp"},
      {"IsVariableInitialized", "VarIsInitializedOp"},
      {"RefSwitch", "Switch"},
      {"ScatterAdd", "ResourceScatterAdd"},
      {"ScatterSub", "ResourceScatterSub"},
      {"ScatterMul", "ResourceScatterMul"},
      {"ScatterDiv", "ResourceScatterDiv"},
      {"ScatterMin", "ResourceScatterMin"},
      {"ScatterMax", "ResourceScatterMax"},
      {"ScatterUpdate", "ResourceScatterUpdate"},
      {"ScatterNdAdd", "ResourceScatterNdAdd"},
      {"ScatterNdSub", "ResourceScatterNdSub"},
      {"ScatterNdUpdate", "ResourceScatterNdUpdate"}};
  const auto found = ops->find(op);
  return found == ops->end() ? nullptr : found->second;
}

bool WritesReference(absl::string_view op) {
  return op != "IsVariableInitialized" && op != "RefSwitch";
}

ResourceName ResourceOf(const NodeDef& variable) {
  std::string shared_name = Text(variable, "shared_name");
  return {Text(variable, "container"), shared_name.empty() ? variable.name() : shared_name};
}

bool ValidatesShape(const NodeDef& assign) {
  const auto validates = assign.attr().find("validate_shape");
  return validates == assign.attr().end() || validates->second.b();
}

// What the earlier graphs have.
struct References::Earlier {
  explicit Earlier(const std::vector<const GraphDef*>& graphs) {
    for (const GraphDef* graph : graphs) {
      if (HasReferenceVariable(graph->library())) in_functions = true;
      for (const NodeDef& node : graph->node()) {
        absl::string_view name = node.name();
        if (node.op() == "VarHandleOp" && absl::ConsumeSuffix(&name, kHandle)) {
          handles.emplace(std::string(name), &node);
          converted.emplace(ResourceOf(node), std::string(name));
        } else if (node.op() == "VarHandleOp" || IsReferenceVariable(node)) {
          kept.emplace(ResourceOf(node), node.name());
        } else if (absl::ConsumeSuffix(&name, kWrite) && node.input_size() > 0) {
          absl::string_view variable = node.input(0);
          if (absl::ConsumeSuffix(&variable, kHandle)) {
            writes[std::string(variable)].push_back(std::string(name));
          }
        }
      }
    }
  }

  bool in_functions = false;
  std::unordered_map<std::string, const NodeDef*> handles;
  std::unordered_map<std::string, std::vector<std::string>> writes;
  std::map<ResourceName, std::string> converted;
  std::map<ResourceName, std::string> kept;
};

References::References(const std::vector<const GraphDef*>& earlier, const GraphDef& graph)
    : graph_(graph) {
  const Earlier before(earlier);
  FindVariables(before);
  if (variables_.empty()) return;
  FindUses(before);
  KeepWhatSharesMemory(before);
  std::vector<int> writes;
  for (const auto& [name, variable] : variables_) {
    for (const int write : Writes(variable, "")) writes.push_back(write);
  }
  after_any_write_ = After(std::move(writes));
}

void References::FindVariables(const Earlier& earlier) {
  const bool in_functions = earlier.in_functions || HasReferenceVariable(graph_.library());
  for (int i = 0; i < graph_.node_size(); ++i) {
    const NodeDef& node = graph_.node(i);
    places_.emplace(node.name(), i);
    if (!IsReferenceVariable(node)) continue;
    ReferenceVariable& variable = variables_[node.name()];
    variable.name = node.name();
    variable.node = i;
    variable.dtype = node.attr().at("dtype").type();
    variable.shape = node.attr().at("shape").shape();
    // The older operation has no other way to say that its shape is unknown.
    if (node.op() == "Variable" && variable.shape.dim_size() == 0) {
      variable.shape.set_unknown_rank(true);
    }
    if (in_functions) variable.obstacle = "functions have reference variables, too";
  }
  if (variables_.empty() && earlier.handles.empty()) return;
  for (int i = 0; i < graph_.node_size(); ++i) {
    const NodeDef& node = graph_.node(i);
    for (int input = 0; input < node.input_size(); ++input) {
      const TensorId id = tensorflow::ParseTensorName(node.input(input));
      const std::string producer(id.node());
      consumers_[producer].push_back({i, id.index() < 0 ? -1 : input});
    }
  }
  for (const auto& [name, node] : earlier.handles) {
    const auto writes = earlier.writes.find(name);
    bool is_used = consumers_.count(name) > 0;
    if (writes != earlier.writes.end()) {
      for (const std::string& write : writes->second) is_used |= consumers_.count(write) > 0;
    }
    if (!is_used) continue;
    ReferenceVariable& variable = variables_[name];
    variable.name = name;
    variable.dtype = node->attr().at("dtype").type();
    variable.shape = node->attr().at("shape").shape();
  }
}

void References::FindUses(const Earlier& earlier) {
  for (auto& [name, variable] : variables_) {
    Follow(name, &variable);
    const auto writes = earlier.writes.find(name);
    if (variable.node >= 0 || writes == earlier.writes.end()) continue;
    for (const std::string& write : writes->second) Follow(write, &variable);
  }
}

void References::Follow(const std::string& from, ReferenceVariable* variable) {
  struct Source {
    std::string node;
    std::string handle;  // empty if each of its outputs is one
  };
  std::unordered_set<int> seen;
  std::vector<Source> sources = {{from, absl::StrCat(variable->name, kHandle)}};
  while (!sources.empty()) {
    const auto [source, handle] = std::move(sources.back());
    sources.pop_back();
    const auto consumers = consumers_.find(source);
    if (consumers == consumers_.end()) continue;
    for (const auto& [place, input] : consumers->second) {
      if (input < 0) continue;
      const NodeDef& node = graph_.node(place);
      const bool is_switched = handle.empty();
      const ReferenceVariable::Use use = {place, input, source,
                                          is_switched ? node.input(input) : handle, is_switched};
      const tensorflow::DataTypeVector types = InputTypes(node);
      if (input >= static_cast<int>(types.size())) {
        variable->obstacle = absl::StrCat("node ", node.name(), " (", node.op(), ") may write it");
      } else if (!tensorflow::IsRefType(types[input])) {
        variable->reads.push_back(use);
      } else if (input == 0 && OnResource(node.op()) != nullptr) {
        // Of nodes with the same name, TensorFlow says what is wrong.
        if (!seen.insert(place).second) continue;
        variable->operations.push_back(use);
        if (node.op() == "Assign" && !ValidatesShape(node)) {
          variable->shape.clear_dim();
          variable->shape.set_unknown_rank(true);
        }
        if (node.op() == "RefSwitch") {
          sources.push_back({node.name(), ""});
        } else if (node.op() != "IsVariableInitialized") {
          sources.push_back({node.name(), use.handle});
        }
      } else {
        variable->obstacle =
            absl::StrCat("node ", node.name(), " (", node.op(), ") takes a reference to it");
      }
    }
  }
}

void References::KeepWhatSharesMemory(const Earlier& earlier) {
  std::map<ResourceName, std::string> obstacles;
  for (const auto& [name, variable] : variables_) {
    if (variable.node < 0) continue;
    std::string& obstacle = obstacles[ResourceOf(graph_.node(variable.node))];
    if (obstacle.empty()) obstacle = variable.obstacle;
  }
  const auto shares = [&](const ResourceName& key, const std::string& other) {
    const auto found = obstacles.find(key);
    if (found == obstacles.end() || !found->second.empty()) return;
    found->second = absl::StrCat("node ", other, " has the same name in the resource manager");
  };
  for (const NodeDef& node : graph_.node()) {
    if (node.op() == "VarHandleOp") shares(ResourceOf(node), node.name());
  }
  for (const auto& [key, name] : earlier.kept) shares(key, name);
  for (auto& [name, variable] : variables_) {
    if (variable.node < 0) continue;
    const ResourceName key = ResourceOf(graph_.node(variable.node));
    variable.obstacle = obstacles[key];
    const auto converted = earlier.converted.find(key);
    if (variable.obstacle.empty() || converted == earlier.converted.end()) continue;
    // The other one is no reference variable any more.
    ReferenceVariable& other = variables_[converted->second];
    other.name = converted->second;
    other.obstacle = variable.obstacle;
  }
}

std::vector<int> References::Writes(const ReferenceVariable& variable,
                                    absl::string_view except) const {
  std::vector<int> writes;
  for (const auto& operation : variable.operations) {
    const NodeDef& node = graph_.node(operation.node);
    if (WritesReference(node.op()) && node.name() != except) writes.push_back(operation.node);
  }
  return writes;
}

std::vector<bool> References::After(std::vector<int> nodes) const {
  std::vector<bool> after(graph_.node_size());
  while (!nodes.empty()) {
    const auto consumers = consumers_.find(graph_.node(nodes.back()).name());
    nodes.pop_back();
    if (consumers == consumers_.end()) continue;
    for (const auto& [place, input] : consumers->second) {
      if (after[place]) continue;
      after[place] = true;
      nodes.push_back(place);
    }
  }
  return after;
}

bool References::MayFollowWrite(const ReferenceVariable& variable,
                                const ReferenceVariable::Use& read) const {
  // Writes of earlier graphs are not known here.
  if (variable.node < 0) return true;
  return after_any_write_[read.node] && After(Writes(variable, read.source))[read.node];
}

}  // namespace session_group
