#include "execute/kernel_factory.h"

#include <optional>
#include <utility>

#include "compile/kernel_choice.h"
#include "tensorflow/core/framework/node_def_util.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;
using tensorflow::NodeProperties;
using tensorflow::OpKernel;
using tensorflow::Tensor;

absl::Status KernelFactory::Make(const Node& node, OpKernel** kernel, std::vector<Value>* inputs) {
  if (const Value* variable = known_.ResolvedVariable(node)) {
    *inputs = {*variable, values_->Input(node, 1), FirstAxis()};
    return MakeGather(node, kernel);
  }
  if (known_.IsLockedGather(node)) {
    const Edge* read;
    node.input_edge(0, &read).IgnoreError();  // KnownValues has found it.
    *inputs = {values_->Input(*read->src(), 0), values_->Input(node, 1)};
    return MakeLockedGather(node, kernel);
  }
  for (int i = 0; i < node.num_inputs(); ++i) inputs->push_back(values_->Input(node, i));
  // The handle itself is not read.
  if (known_.ResolvedTable(node) >= 0) (*inputs)[0] = NoHandle();
  const tensorflow::AttrValue* is_constant = node.attrs().Find("is_filter_const");
  if (is_constant == nullptr || inputs->size() < 2 || (*inputs)[1].kind != Value::kConstant) {
    return Create(node.properties(), kernel);
  }
  // With a constant filter, oneDNN prepares the weights once, in the kernel. TensorFlow may not
  // have seen that the filter is constant.
  return program_->GetKernel(
      node,
      [&](std::shared_ptr<OpKernel>* shared) {
        tensorflow::NodeDef def = node.def();
        (*def.mutable_attr())["is_filter_const"].set_b(true);
        OpKernel* made;
        absl::Status status = Create(std::move(def), &made);
        if (!status.ok()) return status;
        *shared = std::move(l_->kernels.back());
        l_->kernels.pop_back();
        return status;
      },
      &l_->kernels, kernel);
}

OpKernel* KernelFactory::MakeOther(const Node& node, const OpKernel& kernel) {
  std::optional<tensorflow::NodeDef> def = WithoutOneDnn(node, *program_->graph()->op_registry());
  OpKernel* other;
  if (!def.has_value() || !Create(std::move(*def), &other).ok()) return nullptr;
  // With other types, it is a different operation.
  const bool is_same = other->input_types() == kernel.input_types() &&
                       other->output_types() == kernel.output_types();
  return is_same ? other : nullptr;
}

absl::Status KernelFactory::Create(tensorflow::NodeDef def, OpKernel** kernel) {
  std::shared_ptr<const NodeProperties> properties;
  absl::Status status = NodeProperties::CreateFromNodeDef(
      std::move(def), program_->graph()->op_registry(), &properties);
  return status.ok() ? Create(properties, kernel) : status;
}

absl::Status KernelFactory::Create(const std::shared_ptr<const NodeProperties>& properties,
                                   OpKernel** kernel) {
  absl::Status status = library_->CreateKernel(properties, kernel);
  if (status.ok()) l_->kernels.emplace_back(*kernel);
  return status;
}

// Makes a GatherV2 from the variable's value for a ResourceGather.
absl::Status KernelFactory::MakeGather(const Node& node, OpKernel** kernel) {
  tensorflow::NodeDef gather;
  gather.set_name(node.name());
  gather.set_op("GatherV2");
  gather.set_device(node.def().device());
  for (const char* input : {"params", "indices", "axis"}) gather.add_input(input);
  auto& attrs = *gather.mutable_attr();
  attrs["Tparams"] = node.def().attr().at("dtype");
  attrs["Tindices"] = node.def().attr().at("Tindices");
  attrs["Taxis"].set_type(tensorflow::DT_INT32);
  attrs["batch_dims"] = node.def().attr().at("batch_dims");
  return Create(std::move(gather), kernel);
}

// Makes a ResourceGather for a gather from a read of a variable.
absl::Status KernelFactory::MakeLockedGather(const Node& node, OpKernel** kernel) {
  tensorflow::NodeDef gather;
  gather.set_name(node.name());
  gather.set_op("ResourceGather");
  gather.set_device(node.def().device());
  for (const char* input : {"resource", "indices"}) gather.add_input(input);
  auto& attrs = *gather.mutable_attr();
  attrs["dtype"] = node.def().attr().at("Tparams");
  attrs["Tindices"] = node.def().attr().at("Tindices");
  attrs["batch_dims"].set_i(0);
  attrs["validate_indices"].set_b(true);
  return Create(std::move(gather), kernel);
}

KernelFactory::Value KernelFactory::NoHandle() {
  if (no_handle_.kind == Value::kNone) {
    no_handle_ = values_->Constant(Tensor(tensorflow::DT_RESOURCE, tensorflow::TensorShape({})));
  }
  return no_handle_;
}

KernelFactory::Value KernelFactory::FirstAxis() {
  if (first_axis_.kind == Value::kNone) {
    Tensor zero(tensorflow::DT_INT32, tensorflow::TensorShape({}));
    zero.scalar<int32_t>()() = 0;
    first_axis_ = values_->Constant(zero);
  }
  return first_axis_;
}

}  // namespace session_group
