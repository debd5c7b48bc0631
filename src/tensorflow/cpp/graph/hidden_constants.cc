#include "graph/hidden_constants.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "graph/private_buffer.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace session_group {
namespace {

using tensorflow::AttrValue;
using tensorflow::NodeDef;
using tensorflow::Tensor;

using Nodes = tensorflow::protobuf::RepeatedPtrField<NodeDef>;

// Smaller constants are left in the graph: shapes, axes, biases.
constexpr size_t kLarge = size_t{64} << 10;
// The most bytes that optimisers get to see, because they copy a graph several times.
constexpr int64_t kMostRevealed = int64_t{256} << 20;

// The values of all hidden constants of the process, by number.
class Values {
 public:
  static Values* Get() {
    static auto* const values = new Values;
    return values;
  }

  int64_t Add(Tensor value) {
    std::lock_guard<std::mutex> lock(mu_);
    values_.emplace(++last_, std::move(value));
    return last_;
  }

  void Remove(int64_t number) {
    Tensor value;  // freed after the lock is released
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = values_.find(number);
    if (found == values_.end()) return;
    value = std::move(found->second);
    values_.erase(found);
  }

  absl::Status Find(int64_t number, Tensor* value) {
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = values_.find(number);
    if (found == values_.end()) {
      return absl::NotFoundError(
          "the graph has a constant of a session group that was deleted: only sessions of that "
          "group can run it, so load the model again");
    }
    *value = found->second;
    return absl::OkStatus();
  }

 private:
  std::mutex mu_;
  int64_t last_ = 0;
  std::map<int64_t, Tensor> values_;
};

class HiddenConstantOp final : public tensorflow::OpKernel {
 public:
  explicit HiddenConstantOp(tensorflow::OpKernelConstruction* context) : OpKernel(context) {
    Tensor shared;
    OP_REQUIRES_OK(context, FindHiddenConstant(tensorflow::AttrSlice(def()), &shared));
    // Each session counts references to a buffer of its own.
    value_ = PrivateBuffer::View(shared);
  }

  void Compute(tensorflow::OpKernelContext* context) override { context->set_output(0, value_); }

 private:
  Tensor value_;
};

// Moves the bytes of a tensor. Frees each part before it writes the next one, so that a constant
// never takes its memory twice. `content` can't be used afterwards.
void Move(std::string* content, Tensor* tensor) {
  constexpr size_t kPart = size_t{2} << 20;
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* from = content->data();
  char* to = static_cast<char*>(tensor->data());
  for (size_t left = content->size(); left > 0;) {
    const size_t part = std::min(left, kPart);
    std::memcpy(to, from, part);
    // Frees only whole pages of the string. If madvise() fails, the string frees them later.
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(from) + part) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    from += part;
    to += part;
    left -= part;
  }
}

bool IsLarge(const NodeDef& node) {
  if (node.op() != "Const") return false;
  const auto value = node.attr().find("value");
  // A value that is repeated takes little room; any other value takes as much as its bytes.
  return value != node.attr().end() && value->second.tensor().ByteSizeLong() >= kLarge &&
         tensorflow::DataTypeCanUseMemcpy(value->second.tensor().dtype());
}

// The node that an input names: x for "^x", "x:0" and, within functions, "x:output:0".
std::string NodeOf(const std::string& input) {
  const size_t begin = !input.empty() && input[0] == '^' ? 1 : 0;
  return input.substr(begin, input.find(':', begin) - begin);
}

// The nodes of a graph or a function, and their users. TensorFlow has not checked the graph yet: it
// may have cycles, duplicate or unknown names, and too many or too few inputs.
class Uses {
 public:
  explicit Uses(const Nodes& nodes) {
    for (const NodeDef& node : nodes) by_name_[node.name()] = &node;
    for (const NodeDef& node : nodes) {
      for (int i = 0; i < node.input_size(); ++i) {
        if (node.input(i)[0] != '^') users_[NodeOf(node.input(i))].push_back({&node, i});
      }
    }
  }

  // Whether optimisers can only move the constant around, because all its users look up rows in it
  // or multiply it with something that is not constant. A constant without users is not opaque,
  // because a later extension of the graph may use it.
  bool AreOpaque(const std::string& name) const {
    const std::vector<Use> uses = Past(name);
    return !uses.empty() && std::all_of(uses.begin(), uses.end(), [this](const Use& use) {
      return IsOpaque(*use.first, use.second);
    });
  }

 private:
  using Use = std::pair<const NodeDef*, int>;  // the user, and its input

  // The users of a node's output, with Identity nodes skipped.
  std::vector<Use> Past(const std::string& name) const {
    std::vector<Use> uses;
    std::set<std::string> seen = {name};
    std::vector<std::string> left = {name};
    while (!left.empty()) {
      const auto users = users_.find(left.back());
      left.pop_back();
      if (users == users_.end()) continue;
      for (const Use& use : users->second) {
        if (use.first->op() != "Identity") {
          uses.push_back(use);
        } else if (seen.insert(use.first->name()).second) {
          left.push_back(use.first->name());
        }
      }
    }
    return uses;
  }

  static bool IsProduct(const NodeDef& node) {
    static const auto* const products =
        new std::set<std::string>{"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"};
    return products->count(node.op()) > 0;
  }

  bool IsOpaque(const NodeDef& user, int input) const {
    static const auto* const lookups = new std::set<std::string>{"Gather", "GatherV2", "GatherNd"};
    if (user.op() == "InitializeTableV2" || user.op() == "LookupTableImportV2") return true;
    if (user.input_size() < 2 || input > 1) return false;
    if (lookups->count(user.op()) > 0) return input == 0 && !IsConstant(user.input(1));
    if (!IsProduct(user)) return false;
    // Optimisers multiply constants in a chain of products.
    const NodeDef* other = Find(user.input(1 - input));
    if (other == nullptr) return true;  // an argument of a function
    const std::vector<Use> uses = Past(user.name());
    return !IsProduct(*other) && !IsConstant(user.input(1 - input)) &&
           std::none_of(uses.begin(), uses.end(),
                        [](const Use& use) { return IsProduct(*use.first); });
  }

  // The node that an input comes from, with Identity nodes skipped; NULL if there is none.
  const NodeDef* Find(const std::string& input) const {
    std::string name = NodeOf(input);
    for (size_t steps = 0; steps <= by_name_.size(); ++steps) {
      const auto node = by_name_.find(name);
      if (node == by_name_.end()) return nullptr;
      if (node->second->op() != "Identity" || node->second->input_size() == 0) return node->second;
      name = NodeOf(node->second->input(0));
    }
    return nullptr;  // a cycle
  }

  bool IsConstant(const std::string& input) const {
    const NodeDef* node = Find(input);
    return node != nullptr && (node->op() == "Const" || node->op() == HiddenConstantName());
  }

  std::map<std::string, const NodeDef*> by_name_;
  std::map<std::string, std::vector<Use>> users_;
};

// The functions that XLA compiles, and those that they call.
class CompiledFunctions {
 public:
  explicit CompiledFunctions(const tensorflow::GraphDef& graph) {
    for (const auto& function : graph.library().function()) {
      functions_[function.signature().name()] = &function;
    }
    for (const auto& [name, function] : functions_) {
      if (MustCompile(function->attr())) Add(name);
      AddCalled(function->node_def());
    }
    AddCalled(graph.node());
  }

  bool Have(const std::string& name) const { return compiled_.count(name) > 0; }

 private:
  template <typename Attrs>
  static bool MustCompile(const Attrs& attrs) {
    const auto must = attrs.find("_XlaMustCompile");
    return must != attrs.end() && must->second.b();
  }

  void AddCalled(const Nodes& nodes) {
    for (const NodeDef& node : nodes) {
      if (MustCompile(node.attr())) AddOf(node);
    }
  }

  void AddOf(const NodeDef& node) {
    Add(node.op());
    for (const auto& attr : node.attr()) {
      if (attr.second.has_func()) Add(attr.second.func().name());
      for (const auto& function : attr.second.list().func()) Add(function.name());
    }
  }

  void Add(const std::string& name) {
    const auto function = functions_.find(name);
    if (function == functions_.end() || !compiled_.insert(name).second) return;
    for (const NodeDef& node : function->second->node_def()) AddOf(node);
  }

  std::map<std::string, const tensorflow::FunctionDef*> functions_;
  std::set<std::string> compiled_;
};

}  // namespace

const std::string& HiddenConstantName() {
  // TensorFlow keeps operations until the process ends. Each loaded copy of this library needs an
  // operation of its own, because it has constants of its own, so the name includes an address.
  static const std::string* const name = [] {
    auto* name = new std::string(absl::StrCat(
        "SessionGroupConstant", absl::Hex(reinterpret_cast<uintptr_t>(Values::Get()))));
    tensorflow::OpRegistry::Global()->Register(
        [name](tensorflow::OpRegistrationData* data) -> absl::Status {
          return tensorflow::OpDefBuilder(*name)
              .Attr("number: int")
              .Attr("dtype: type")
              .Attr("shape: shape")
              .Output("output: dtype")
              .SetShapeFn(tensorflow::shape_inference::ExplicitShape)
              .Finalize(data);
        });
    // The constructor registers the kernel.
    tensorflow::kernel_factory::OpKernelRegistrar(
        tensorflow::KernelDefBuilder(name->c_str()).Device(tensorflow::DEVICE_CPU).Build(),
        "HiddenConstantOp", [](tensorflow::OpKernelConstruction* context) -> tensorflow::OpKernel* {
          return new HiddenConstantOp(context);
        });
    return name;
  }();
  return *name;
}

absl::Status FindHiddenConstant(const tensorflow::AttrSlice& attrs, Tensor* value) {
  int64_t number;
  absl::Status found = tensorflow::GetNodeAttr(attrs, "number", &number);
  return found.ok() ? Values::Get()->Find(number, value) : found;
}

HiddenConstants::~HiddenConstants() {
  for (const Constant& constant : constants_) Values::Get()->Remove(constant.number);
}

class HiddenConstants::Search {
 public:
  Search(ConstantStore* store, HiddenConstants* hidden) : store_(store), hidden_(hidden) {}

  absl::Status Hide(Nodes* nodes) {
    std::vector<std::pair<NodeDef*, bool>> found;
    const Uses uses(*nodes);
    for (NodeDef& node : *nodes) {
      if (IsLarge(node)) found.push_back({&node, uses.AreOpaque(node.name())});
    }
    for (const auto& [node, is_opaque] : found) {
      absl::Status hidden = Hide(node, is_opaque);
      if (!hidden.ok()) return hidden;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Hide(NodeDef* node, bool is_opaque) {
    Tensor value;
    absl::Status taken = Take(node, &value);
    if (!taken.ok()) return taken;
    const bool is_revealed = !is_opaque && revealed_ + value.TotalBytes() <= kMostRevealed;
    if (is_revealed) revealed_ += value.TotalBytes();
    auto& attrs = *node->mutable_attr();
    node->set_op(HiddenConstantName());
    attrs.erase("value");
    value.shape().AsProto(attrs["shape"].mutable_shape());
    const int64_t number = Values::Get()->Add(store_->Share(value));
    attrs["number"].set_i(number);
    // TensorFlow's last constant folding skips nodes with this attribute. Otherwise it would fold
    // the node and copy its value into memory that is never returned.
    attrs["_scoped_allocator"].mutable_list();
    hidden_->constants_.push_back({number, is_revealed});
    hidden_->can_reveal_ |= is_revealed;
    return absl::OkStatus();
  }

  // Moves a constant's value out of its node.
  absl::Status Take(NodeDef* node, Tensor* value) const {
    tensorflow::TensorProto* proto = (*node->mutable_attr())["value"].mutable_tensor();
    tensorflow::TensorShape dims;
    const bool has_shape =
        tensorflow::TensorShape::BuildTensorShape(proto->tensor_shape(), &dims).ok();
    const size_t size = tensorflow::DataTypeSize(proto->dtype());
    if (has_shape && proto->tensor_content().size() == dims.num_elements() * size) {
      *value = Tensor(store_->allocator(), proto->dtype(), dims);
      if (!value->IsInitialized()) {
        return absl::ResourceExhaustedError(
            absl::StrCat("out of memory for the constant ", node->name()));
      }
      Move(proto->mutable_tensor_content(), value);
    } else if (!value->FromProto(store_->allocator(), *proto)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the value of the constant ", node->name(),
                       " can't be read from the graph: export the model again"));
    }
    // Frees the value before the next constant is copied.
    proto->Clear();
    return absl::OkStatus();
  }

  ConstantStore* const store_;
  HiddenConstants* const hidden_;
  int64_t revealed_ = 0;
};

absl::Status HiddenConstants::Hide(tensorflow::GraphDef* graph, ConstantStore* store) {
  const TableNodes::Scope spreads(store->nodes());
  Search search(store, this);
  absl::Status hidden = search.Hide(graph->mutable_node());
  const CompiledFunctions compiled(*graph);
  for (auto& function : *graph->mutable_library()->mutable_function()) {
    if (compiled.Have(function.signature().name())) continue;
    if (hidden.ok()) hidden = search.Hide(function.mutable_node_def());
  }
  return hidden;
}

absl::Status HiddenConstants::Reveal(tensorflow::GraphDef* graph) const {
  std::set<int64_t> revealed;
  for (const Constant& constant : constants_) {
    if (constant.is_revealed) revealed.insert(constant.number);
  }
  const auto reveal = [&](Nodes* nodes) -> absl::Status {
    for (NodeDef& node : *nodes) {
      if (node.op() != HiddenConstantName()) continue;
      auto& attrs = *node.mutable_attr();
      const int64_t number = attrs["number"].i();
      if (revealed.count(number) == 0) continue;
      Tensor value;
      absl::Status found = Values::Get()->Find(number, &value);
      if (!found.ok()) return found;
      node.set_op("Const");
      attrs.erase("number");
      attrs.erase("shape");
      attrs.erase("_scoped_allocator");
      value.AsProtoTensorContent(attrs["value"].mutable_tensor());
    }
    return absl::OkStatus();
  };
  absl::Status done = reveal(graph->mutable_node());
  for (auto& function : *graph->mutable_library()->mutable_function()) {
    if (done.ok()) done = reveal(function.mutable_node_def());
  }
  return done;
}

}  // namespace session_group
