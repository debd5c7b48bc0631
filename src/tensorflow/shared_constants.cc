#include "shared_constants.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {
namespace {

using tensorflow::NodeDef;
using tensorflow::Tensor;

// Smaller constants are left where optimising can make something of them: shapes, axes, biases.
constexpr size_t kLarge = size_t{64} << 10;

bool IsLarge(const NodeDef& node) {
  if (node.op() != "Const") return false;
  const auto value = node.attr().find("value");
  // A value that is repeated takes little room; all others are as long as their bytes.
  return value != node.attr().end() && value->second.tensor().ByteSizeLong() >= kLarge &&
         tensorflow::DataTypeCanUseMemcpy(value->second.tensor().dtype());
}

// Moves the bytes of a tensor, giving back the memory of each part before the next one is written:
// a constant is not there twice at any time. `content` is of no use afterwards.
void Move(std::string* content, Tensor* tensor) {
  constexpr size_t kPart = size_t{2} << 20;
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* from = content->data();
  char* to = static_cast<char*>(tensor->data());
  for (size_t left = content->size(); left > 0;) {
    const size_t part = std::min(left, kPart);
    std::memcpy(to, from, part);
    // Whole pages of the string's own bytes. Where it fails, they go with the string.
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(from) + part) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    from += part;
    to += part;
    left -= part;
  }
}

class Sharing {
 public:
  Sharing(const std::string& container, tensorflow::ResourceMgr* resources,
          tensorflow::Allocator* allocator)
      : container_(container), resources_(resources), allocator_(allocator) {}

  absl::Status Share(tensorflow::protobuf::RepeatedPtrField<NodeDef>* nodes) {
    const int n = nodes->size();
    for (int i = 0; i < n; ++i) {
      NodeDef* constant = nodes->Mutable(i);
      if (!IsLarge(*constant)) continue;
      const tensorflow::AttrValue dtype = constant->attr().at("dtype");
      tensorflow::AttrValue shape;
      absl::Status made = MakeVariable(constant, &shape);
      if (!made.ok()) return made;

      NodeDef* handle = nodes->Add();
      handle->set_name(absl::StrCat(constant->name(), "/session_group_handle"));
      handle->set_op("VarHandleOp");
      handle->set_device(constant->device());
      (*handle->mutable_attr())["container"].set_s(container_);
      (*handle->mutable_attr())["shared_name"].set_s(constant->name());
      (*handle->mutable_attr())["dtype"] = dtype;
      (*handle->mutable_attr())["shape"] = shape;

      NodeDef* read = nodes->Add();
      read->set_name(absl::StrCat(constant->name(), "/session_group_read"));
      read->set_op("ReadVariableOp");
      read->set_device(constant->device());
      read->add_input(handle->name());
      (*read->mutable_attr())["dtype"] = dtype;

      // Under the constant's name, for those who use or fetch it.
      const std::vector<std::string> control(constant->input().begin(), constant->input().end());
      constant->set_op("Identity");
      constant->clear_input();
      constant->add_input(read->name());
      for (const std::string& input : control) constant->add_input(input);
      auto& attrs = *constant->mutable_attr();
      attrs.erase("value");
      attrs.erase("dtype");
      attrs["T"] = dtype;
    }
    return absl::OkStatus();
  }

 private:
  // Moves a constant's value to a variable.
  absl::Status MakeVariable(NodeDef* constant, tensorflow::AttrValue* shape) {
    tensorflow::TensorProto* proto = (*constant->mutable_attr())["value"].mutable_tensor();
    Tensor value;
    tensorflow::TensorShape dims;
    const bool has_shape =
        tensorflow::TensorShape::BuildTensorShape(proto->tensor_shape(), &dims).ok();
    const size_t size = tensorflow::DataTypeSize(proto->dtype());
    if (has_shape && proto->tensor_content().size() == dims.num_elements() * size) {
      value = Tensor(allocator_, proto->dtype(), dims);
      if (!value.IsInitialized()) {
        return absl::ResourceExhaustedError(
            absl::StrCat("out of memory for the constant ", constant->name()));
      }
      Move(proto->mutable_tensor_content(), &value);
    } else if (!value.FromProto(allocator_, *proto)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the value of the constant ", constant->name(), " can't be read"));
    }
    // Before the next constant is copied.
    proto->Clear();
    value.shape().AsProto(shape->mutable_shape());
    auto* variable = new tensorflow::Var(value.dtype());
    *variable->tensor() = std::move(value);
    variable->is_initialized = true;
    return resources_->Create(container_, constant->name(), variable);  // takes the reference
  }

  const std::string& container_;
  tensorflow::ResourceMgr* const resources_;
  tensorflow::Allocator* const allocator_;
};

}  // namespace

absl::Status ShareConstants(tensorflow::GraphDef* graph, const std::string& container,
                            tensorflow::ResourceMgr* resources, tensorflow::Allocator* allocator) {
  return Sharing(container, resources, allocator).Share(graph->mutable_node());
}

}  // namespace session_group
