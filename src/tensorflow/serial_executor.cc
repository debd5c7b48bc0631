#include "serial_executor.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tensorflow/core/common_runtime/rendezvous_mgr.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/resource_handle.h"
#include "tensorflow/core/graph/algorithm.h"
#include "tensorflow/core/public/session_options.h"
#include "tsl/platform/denormal.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;
using tensorflow::NodeProperties;
using tensorflow::OpKernel;
using tensorflow::Tensor;

// What a run needs. Made once, used by one run at a time.
struct SerialExecutor::Frame {
  std::vector<Tensor> feeds;
  std::vector<Tensor> variables;
  uint64_t variables_as_of = 0;
  std::vector<Tensor> slots;
  // Second references to slots with several users, which keep kernels from writing in place.
  std::vector<Tensor> guards;
  // Those of all steps, pointing to the tensors of this frame and to constants.
  std::vector<tensorflow::TensorValue> inputs;
  tensorflow::CancellationManager cancellation;
  tensorflow::OpKernelContext::Params params;
};

// Lays out the steps.
class SerialExecutor::Builder {
 public:
  explicit Builder(SerialExecutor* executor) : e_(executor) {}

  absl::Status Build() {
    std::vector<Node*> order;
    tensorflow::GetReversePostOrder(*e_->program_->graph(), &order,
                                    tensorflow::NodeComparatorName());
    e_->feed_types_.resize(e_->program_->feeds().size(), tensorflow::DT_INVALID);
    e_->fetches_.resize(e_->program_->num_fetches());
    for (Node* node : order) {
      if (!node->IsOp()) continue;
      absl::Status added = Add(*node);
      if (!added.ok()) return tensorflow::AttachDef(added, node->def());
    }
    FindLastUses();
    return absl::OkStatus();
  }

 private:
  absl::Status Add(const Node& node) {
    if (node.IsArg()) return AddFeed(node);
    if (node.IsRetval()) return AddFetch(node);
    if (node.type_string() == "NoOp" || node.IsIdentity()) return absl::OkStatus();
    if (e_->env_.resolve_reads && !e_->program_->writes()) {
      if (node.type_string() == "VarHandleOp") return AddHandle(node);
      const auto variable = variables_.find(Source(node, 0));
      if (variable != variables_.end() && Resolves(node)) {
        const Value value = {Value::kVariable, static_cast<int>(e_->reads_.Add(variable->second))};
        return AddRead(node, value);
      }
    }
    return AddKernel(node);
  }

  absl::Status AddFeed(const Node& node) {
    int index;
    absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "index", &index);
    if (!status.ok()) return status;
    if (index < 0 || index >= static_cast<int>(e_->feed_types_.size())) {
      return absl::InternalError("an argument that is no feed");
    }
    e_->feed_types_[index] = node.output_type(0);
    values_[{node.id(), 0}] = {Value::kFeed, index};
    return absl::OkStatus();
  }

  absl::Status AddFetch(const Node& node) {
    int index;
    absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "index", &index);
    if (!status.ok()) return status;
    if (index < 0 || index >= static_cast<int>(e_->fetches_.size())) {
      return absl::InternalError("a return value that is no fetch");
    }
    e_->fetches_[index] = Input(node, 0);
    return absl::OkStatus();
  }

  // A variable's handle, which nobody needs whose reads are resolved.
  absl::Status AddHandle(const Node& node) {
    VariableReads::Variable variable;
    absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "container", &variable.container);
    status.Update(tensorflow::GetNodeAttr(node.attrs(), "shared_name", &variable.name));
    status.Update(tensorflow::GetNodeAttr(node.attrs(), "dtype", &variable.dtype));
    if (!status.ok()) return status;
    if (variable.name.empty() || variable.name == tensorflow::ResourceHandle::ANONYMOUS_NAME) {
      return AddKernel(node);
    }
    variables_[{node.id(), 0}] = variable;
    return OnlyResolvedUses(node) ? absl::OkStatus() : AddKernel(node);
  }

  static bool Resolves(const Node& node) {
    return node.type_string() == "ReadVariableOp" || node.type_string() == "ResourceGather";
  }

  static bool OnlyResolvedUses(const Node& node) {
    return std::all_of(node.out_edges().begin(), node.out_edges().end(), [](const Edge* edge) {
      const Node& user = *edge->dst();
      return edge->IsControlEdge() || Resolves(user) ||
             (user.IsIdentity() && OnlyResolvedUses(user));
    });
  }

  // A ReadVariableOp is the variable's value; a ResourceGather becomes a gather from it.
  absl::Status AddRead(const Node& node, Value value) {
    if (node.type_string() == "ReadVariableOp") {
      values_[{node.id(), 0}] = value;
      return absl::OkStatus();
    }
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
    std::shared_ptr<const NodeProperties> properties;
    absl::Status status = NodeProperties::CreateFromNodeDef(
        std::move(gather), e_->program_->graph()->op_registry(), &properties);
    if (!status.ok()) return status;
    if (axis_.kind == Value::kNone) {
      axis_ = {Value::kConstant, static_cast<int>(e_->constants_.size())};
      Tensor zero(tensorflow::DT_INT32, tensorflow::TensorShape({}));
      zero.scalar<int32_t>()() = 0;
      e_->constants_.push_back(zero);
    }
    OpKernel* kernel;
    status = e_->MakeKernel(properties, &kernel);
    if (!status.ok()) return status;
    return AddStep(node, kernel, {value, Input(node, 1), axis_});
  }

  absl::Status AddKernel(const Node& node) {
    OpKernel* kernel;
    absl::Status status = e_->MakeKernel(node.properties(), &kernel);
    if (!status.ok()) return status;
    if (node.num_outputs() == 1 && kernel->const_tensor() != nullptr) {
      values_[{node.id(), 0}] = {Value::kConstant, static_cast<int>(e_->constants_.size())};
      e_->constants_.push_back(*kernel->const_tensor());
      return absl::OkStatus();
    }
    std::vector<Value> inputs;
    for (int i = 0; i < node.num_inputs(); ++i) inputs.push_back(Input(node, i));
    return AddStep(node, kernel, inputs);
  }

  absl::Status AddStep(const Node& node, OpKernel* kernel, const std::vector<Value>& inputs) {
    Step step;
    step.kernel = kernel;
    step.async = kernel->AsAsync();
    step.first_input = static_cast<int>(e_->inputs_.size());
    step.num_inputs = static_cast<int>(inputs.size());
    step.first_output = static_cast<int>(e_->output_attrs_.size());
    step.num_outputs = kernel->num_outputs();
    for (const Value& input : inputs) {
      if (input.kind == Value::kNone) return absl::InternalError("an input comes from nowhere");
      e_->inputs_.push_back(input);
      e_->input_attrs_.push_back(input.kind == Value::kSlot ? e_->output_attrs_[input.index]
                                                            : tensorflow::AllocatorAttributes());
    }
    for (int i = 0; i < step.num_outputs; ++i) {
      values_[{node.id(), i}] = {Value::kSlot, static_cast<int>(e_->output_attrs_.size())};
      tensorflow::AllocatorAttributes attr;
      attr.set_on_host(kernel->output_memory_types()[i] == tensorflow::HOST_MEMORY);
      e_->output_attrs_.push_back(attr);
    }
    e_->may_wait_ |= step.async != nullptr;
    e_->steps_.push_back(std::move(step));
    return absl::OkStatus();
  }

  void FindLastUses() {
    const size_t slots = e_->output_attrs_.size();
    std::vector<int> uses(slots, 0);
    std::vector<int> last(slots, -1);
    for (size_t s = 0; s < e_->steps_.size(); ++s) {
      const Step& step = e_->steps_[s];
      for (int i = 0; i < step.num_outputs; ++i) last[step.first_output + i] = s;
      for (int i = 0; i < step.num_inputs; ++i) {
        const Value& input = e_->inputs_[step.first_input + i];
        if (input.kind != Value::kSlot) continue;
        ++uses[input.index];
        last[input.index] = s;
      }
    }
    std::vector<bool> fetched(slots, false);
    for (const Value& fetch : e_->fetches_) {
      if (fetch.kind == Value::kSlot) fetched[fetch.index] = true;
    }
    e_->guarded_.resize(slots);
    for (size_t slot = 0; slot < slots; ++slot) {
      e_->guarded_[slot] = uses[slot] + (fetched[slot] ? 1 : 0) > 1;
      if (fetched[slot]) continue;
      Step& step = e_->steps_[last[slot]];
      step.dead.push_back(slot);
      const auto begin = e_->inputs_.begin() + step.first_input;
      const auto in_last = std::count_if(begin, begin + step.num_inputs, [&](const Value& v) {
        return v.kind == Value::kSlot && v.index == static_cast<int>(slot);
      });
      if (e_->guarded_[slot] && in_last == 1) step.unguard.push_back(slot);
    }
  }

  // The node and the output that an input comes from; an Identity only passes it on.
  static std::pair<int, int> Source(const Node& node, int input) {
    const Edge* edge;
    if (input >= node.num_inputs() || !node.input_edge(input, &edge).ok()) return {-1, 0};
    if (edge->src()->IsIdentity()) return Source(*edge->src(), 0);
    return {edge->src()->id(), edge->src_output()};
  }

  Value Input(const Node& node, int input) const {
    const auto value = values_.find(Source(node, input));
    return value == values_.end() ? Value() : value->second;
  }

  SerialExecutor* const e_;
  std::map<std::pair<int, int>, Value> values_;  // by node and output
  std::map<std::pair<int, int>, VariableReads::Variable> variables_;
  Value axis_;
};

absl::Status SerialExecutor::Make(const Program* program, const Env& env,
                                  std::unique_ptr<SerialExecutor>* executor) {
  std::unique_ptr<SerialExecutor> made(new SerialExecutor(program, env));
  absl::Status status = Builder(made.get()).Build();
  if (status.ok()) *executor = std::move(made);
  return status;
}

SerialExecutor::SerialExecutor(const Program* program, const Env& env)
    : program_(program),
      env_(env),
      functions_(std::make_unique<tensorflow::ProcessFunctionLibraryRuntime>(
          env.device_mgr, env.options->env, &env.options->config,
          program->graph()->versions().producer(), &program->graph()->flib_def(),
          env.options->config.graph_options().optimizer_options())),
      library_(functions_->GetFLR(env.device->name())),
      reads_(env.device->resource_manager(), env.writes) {}

SerialExecutor::~SerialExecutor() {
  for (auto& spare : spare_) delete spare.load();
}

absl::Status SerialExecutor::MakeKernel(const std::shared_ptr<const NodeProperties>& properties,
                                        OpKernel** kernel) {
  absl::Status status = library_->CreateKernel(properties, kernel);
  if (status.ok()) kernels_.emplace_back(*kernel);
  return status;
}

Tensor* SerialExecutor::Find(Value value, Frame* frame) {
  switch (value.kind) {
    case Value::kFeed:
      return &frame->feeds[value.index];
    case Value::kConstant:
      return &constants_[value.index];
    case Value::kVariable:
      return &frame->variables[value.index];
    default:
      return &frame->slots[value.index];
  }
}

std::unique_ptr<SerialExecutor::Frame> SerialExecutor::TakeFrame() {
  for (auto& spare : spare_) {
    if (spare.load(std::memory_order_relaxed) == nullptr) continue;
    if (Frame* frame = spare.exchange(nullptr, std::memory_order_acquire)) {
      return std::unique_ptr<Frame>(frame);
    }
  }
  auto frame = std::make_unique<Frame>();
  frame->feeds.resize(feed_types_.size());
  frame->variables.resize(reads_.size());
  frame->slots.resize(output_attrs_.size());
  frame->guards.resize(output_attrs_.size());
  for (const Value& input : inputs_) frame->inputs.emplace_back(Find(input, frame.get()));

  static auto* const inline_runner = new std::function<void(std::function<void()>)>(
      [](const std::function<void()>& closure) { closure(); });
  auto& params = frame->params;
  params.device = env_.device;
  params.resource_manager = env_.device->resource_manager();
  params.session_config = &env_.options->config;
  params.function_library = library_;
  params.cancellation_manager = &frame->cancellation;
  params.runner = inline_runner;
  params.run_all_kernels_inline = true;
  params.frame_iter = tensorflow::FrameAndIter(0, 0);
  return frame;
}

void SerialExecutor::GiveBack(std::unique_ptr<Frame> frame) {
  for (auto& spare : spare_) {
    Frame* expected = nullptr;
    if (spare.compare_exchange_strong(expected, frame.get(), std::memory_order_release,
                                      std::memory_order_relaxed)) {
      frame.release();
      return;
    }
  }
}

absl::Status SerialExecutor::CheckFeeds(absl::Span<const Tensor* const> feeds) const {
  if (feeds.size() != feed_types_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", feeds.size(),
                                                   " tensors to feed, not ", feed_types_.size()));
  }
  for (size_t i = 0; i < feeds.size(); ++i) {
    if (feeds[i]->dtype() != feed_types_[i] && feed_types_[i] != tensorflow::DT_INVALID) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the tensor to feed to ", program_->feeds()[i], " has type ",
          tensorflow::DataTypeString(feeds[i]->dtype()), ", but the graph takes ",
          tensorflow::DataTypeString(feed_types_[i])));
    }
  }
  return absl::OkStatus();
}

absl::Status SerialExecutor::Run(absl::Span<const Tensor* const> feeds,
                                 std::optional<absl::Time> deadline, absl::Span<Tensor> fetches,
                                 Outcome* outcome) {
  absl::Status status = CheckFeeds(feeds);
  if (!status.ok()) return status;

  std::unique_ptr<Frame> frame = TakeFrame();
  if (!reads_.empty() && !reads_.Refresh(&frame->variables_as_of, &frame->variables)) {
    *outcome = Outcome::kUnresolved;
    GiveBack(std::move(frame));
    return absl::OkStatus();
  }
  *outcome = Outcome::kRan;
  // A reference of our own keeps kernels from writing into the caller's tensors.
  for (size_t i = 0; i < feeds.size(); ++i) frame->feeds[i] = *feeds[i];

  status = RunSteps(frame.get(), deadline);
  // A frame that has seen a failure is not used again: there may be anything in it.
  if (!status.ok()) return status;

  for (size_t i = 0; i < fetches_.size(); ++i) fetches[i] = *Find(fetches_[i], frame.get());
  for (const Value& fetch : fetches_) {
    if (fetch.kind != Value::kSlot) continue;
    frame->slots[fetch.index] = Tensor();
    frame->guards[fetch.index] = Tensor();
  }
  for (Tensor& feed : frame->feeds) feed = Tensor();
  GiveBack(std::move(frame));
  return status;
}

absl::Status SerialExecutor::RunSteps(Frame* frame, std::optional<absl::Time> deadline) {
  // As in TensorFlow's own threads.
  tsl::port::ScopedFlushDenormal flush;

  // Function calls need what is unique to a run.
  std::optional<tensorflow::PrivateIntraProcessRendezvous> rendezvous;
  std::optional<tensorflow::ScopedStepContainer> container;
  auto& params = frame->params;
  params.deadline = deadline;
  if (may_wait_) {
    // Sessions number their steps from 0 on.
    static std::atomic<int64_t> next_step{int64_t{1} << 62};
    params.step_id = next_step.fetch_add(1, std::memory_order_relaxed);
    rendezvous.emplace(env_.device_mgr);
    params.rendezvous = &*rendezvous;
    container.emplace(params.step_id, [this](const std::string& name) {
      env_.device->resource_manager()->Cleanup(name).IgnoreError();
    });
    params.step_container = &*container;
  }

  for (const Step& step : steps_) {
    if (deadline.has_value() && absl::Now() >= *deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the request's timeout passed before node ", step.kernel->name(), " was run"));
    }
    for (int slot : step.unguard) frame->guards[slot] = Tensor();
    params.op_kernel = step.kernel;
    params.inputs = {frame->inputs.data() + step.first_input,
                     static_cast<size_t>(step.num_inputs)};
    params.input_alloc_attrs = {input_attrs_.data() + step.first_input,
                                static_cast<size_t>(step.num_inputs)};
    params.output_attr_array = output_attrs_.data() + step.first_output;
    tensorflow::OpKernelContext context(&params, step.num_outputs);
    if (step.async == nullptr) {
      step.kernel->Compute(&context);
    } else {
      absl::Notification done;
      step.async->ComputeAsync(&context, [&done] { done.Notify(); });
      done.WaitForNotification();
    }
    if (!context.status().ok()) {
      return tensorflow::AttachDef(context.status(), step.kernel->def());
    }
    for (int i = 0; i < step.num_outputs; ++i) {
      const tensorflow::TensorValue output = context.release_output(i);
      if (output.tensor == nullptr) {
        return tensorflow::AttachDef(
            absl::InternalError(absl::StrCat("output ", i, " was not computed")),
            step.kernel->def());
      }
      Tensor& slot = frame->slots[step.first_output + i];
      slot = std::move(*output.tensor);
      delete output.tensor;
      if (guarded_[step.first_output + i]) frame->guards[step.first_output + i] = slot;
    }
    for (int slot : step.dead) {
      frame->slots[slot] = Tensor();
      if (guarded_[slot]) frame->guards[slot] = Tensor();
    }
  }
  return absl::OkStatus();
}

}  // namespace session_group
