#include "execute/known_values.h"

#include <algorithm>
#include <utility>

#include "compile/effects.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/resource_handle.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;
using tensorflow::Tensor;

namespace {

// Whether a node reads a table in a way that needs no handle.
bool ReadsTable(const Node& node) {
  return node.type_string() == "LookupTableFindV2" || node.type_string() == "LookupTableSizeV2";
}

// The name of the variable or table whose handle a node makes.
absl::Status NameOf(const Node& node, ResolvedReads::Name* name) {
  absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "container", &name->container);
  status.Update(tensorflow::GetNodeAttr(node.attrs(), "shared_name", &name->name));
  return status;
}

}  // namespace

absl::Status KnownValues::Find(const Node& node) {
  const std::string& op = node.type_string();
  if (node.IsArg()) {
    int index;
    absl::Status status = ArgumentIndex(node, l_->feed_types.size(), &index);
    if (!status.ok()) return status;
    l_->feed_types[index] = node.output_type(0);
    values_->Set(node, 0, {Value::kFeed, index});
  } else if (const Tensor* constant = program_.constant(node)) {
    values_->Set(node, 0, values_->Constant(*constant));
  } else if (op == "VarHandleOp" && Resolves()) {
    return FindVariable(node);
  } else if (IsNamedTable(op) && Resolves()) {
    return FindTable(node);
  } else if (ReadsTable(node)) {
    const auto table = tables_.find(values_->Source(node, 0));
    if (table == tables_.end()) return absl::OkStatus();
    resolved_tables_[&node] = static_cast<int>(reads_->AddTable(table->second));
  } else if (op == "ReadVariableOp" || op == "ResourceGather") {
    const auto variable = variables_.find(values_->Source(node, 0));
    if (variable == variables_.end()) return absl::OkStatus();
    const Value value = {Value::kVariable, static_cast<int>(reads_->Add(variable->second))};
    const auto rank = ranks_of_variables_.find(ResolvedReads::Key(variable->second));
    if (rank != ranks_of_variables_.end()) ranks_of_reads_[value.index] = rank->second;
    if (op == "ReadVariableOp") {
      values_->Set(node, 0, value);
    } else {
      resolved_gathers_[&node] = value;
      if (CanLookUp(node)) gathers_[&node] = value;
    }
  } else if (op == "GatherV2" || op == "Gather") {
    const bool is_first_axis = op == "Gather" || values_->ConstantAxis(node, 2) == 0;
    if (!is_first_axis || !CanLookUp(node)) return absl::OkStatus();
    const Value params = values_->Input(node, 0);
    if (params.kind == Value::kVariable || params.kind == Value::kConstant) {
      gathers_[&node] = params;
    } else {
      FindUnresolvedGather(node);
    }
  }
  return absl::OkStatus();
}

absl::Status KnownValues::FindVariable(const Node& node) {
  ResolvedReads::Variable variable;
  absl::Status status = NameOf(node, &variable);
  status.Update(tensorflow::GetNodeAttr(node.attrs(), "dtype", &variable.dtype));
  if (!status.ok() || variable.name.empty() ||
      variable.name == tensorflow::ResourceHandle::ANONYMOUS_NAME) {
    return status;
  }
  const std::string key = ResolvedReads::Key(variable);
  if (IsUnresolved(key)) {
    unresolved_.insert({node.id(), 0});
    return status;
  }
  tensorflow::PartialTensorShape shape;
  if (tensorflow::GetNodeAttr(node.attrs(), "shape", &shape).ok()) {
    ranks_of_variables_[key] = shape.dims();
  }
  variables_[{node.id(), 0}] = std::move(variable);
  if (OnlyResolvedUses(node)) not_needed_.insert(&node);
  return status;
}

absl::Status KnownValues::FindTable(const Node& node) {
  ResolvedReads::Name table;
  absl::Status status = NameOf(node, &table);
  // Without a name, the table belongs to the kernel.
  if (!status.ok() || table.name.empty() || IsUnresolved(ResolvedReads::TableKey(table))) {
    return status;
  }
  tables_[{node.id(), 0}] = std::move(table);
  if (OnlyResolvedUses(node)) not_needed_.insert(&node);
  return status;
}

// Finds a gather from a variable that must be read under its lock. As two operations, read and
// gather would copy the whole variable.
void KnownValues::FindUnresolvedGather(const Node& node) {
  const Edge* edge;
  if (!node.input_edge(0, &edge).ok()) return;
  const Node& read = *edge->src();
  if (read.type_string() != "ReadVariableOp" || unresolved_.count(values_->Source(read, 0)) == 0) {
    return;
  }
  locked_gathers_.insert(&node);
  const bool only =
      std::all_of(read.out_edges().begin(), read.out_edges().end(), [&](const Edge* use) {
        return use->IsControlEdge() || locked_gathers_.count(use->dst()) > 0;
      });
  if (only) not_needed_.insert(&read);
}

// Whether Lookups can do a gather.
bool KnownValues::CanLookUp(const Node& node) const {
  const tensorflow::AttrValue* batch_dims = node.attrs().Find("batch_dims");
  const tensorflow::DataType index = node.input_type(1);
  return options_.fuse_lookups &&
         (index == tensorflow::DT_INT32 || index == tensorflow::DT_INT64) &&
         (batch_dims == nullptr || batch_dims->i() == 0) &&
         tensorflow::DataTypeCanUseMemcpy(node.output_type(0));
}

// Whether all users of a handle read the value of the variable, or look keys up in the table,
// looking through nodes that pass the handle on.
bool KnownValues::OnlyResolvedUses(const Node& node) const {
  return std::all_of(node.out_edges().begin(), node.out_edges().end(), [this](const Edge* edge) {
    const Node& user = *edge->dst();
    if (edge->IsControlEdge() || user.type_string() == "ReadVariableOp" ||
        user.type_string() == "ResourceGather" || ReadsTable(user)) {
      return true;
    }
    return (user.IsIdentity() || user.IsEnter() || user.IsSwitch()) && OnlyResolvedUses(user);
  });
}

bool KnownValues::MayBeMatrix(Value table) const {
  if (table.kind == Value::kConstant) return l_->constants[table.index].dims() == 2;
  const auto rank = ranks_of_reads_.find(table.index);
  return rank == ranks_of_reads_.end() || rank->second == 2 || rank->second < 0;
}

absl::Status ArgumentIndex(const Node& node, size_t limit, int* index) {
  absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "index", index);
  if (status.ok() && (*index < 0 || *index >= static_cast<int>(limit))) {
    return absl::InternalError(
        "the optimised graph has an argument or a return value that is not a feed or fetch of the "
        "request");
  }
  return status;
}

}  // namespace session_group
