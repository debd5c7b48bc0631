#include "serial_executor.h"

#include <algorithm>
#include <map>
#include <set>
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
  explicit Frame(tensorflow::CancellationManager* closing) : cancellation(closing) {}

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
    for (size_t i = 0; i < order.size(); ++i) {
      ranks_[order[i]] = i;
      absl::Status found = FindValue(*order[i]);
      if (!found.ok()) return tensorflow::AttachDef(found, order[i]->def());
    }
    for (const Node* node : order) FindConcatenation(*node);
    absl::Status added = AddInOrder(order);
    if (!added.ok()) return added;
    FindLastUses();
    return absl::OkStatus();
  }

 private:
  bool Resolves() const { return e_->env_.resolve_reads && !e_->program_->writes(); }

  // First pass: what is there before the first step.
  absl::Status FindValue(const Node& node) {
    const std::string& op = node.type_string();
    if (node.IsArg()) {
      int index;
      absl::Status status = Index(node, e_->feed_types_.size(), &index);
      if (!status.ok()) return status;
      e_->feed_types_[index] = node.output_type(0);
      values_[{node.id(), 0}] = {Value::kFeed, index};
    } else if (op == "Const" || op == "HostConst") {
      OpKernel* kernel;
      absl::Status status = e_->MakeKernel(node.properties(), &kernel);
      if (!status.ok()) return status;
      if (kernel->const_tensor() == nullptr) return absl::InternalError("no constant");
      values_[{node.id(), 0}] = Constant(*kernel->const_tensor());
    } else if (op == "VarHandleOp" && Resolves()) {
      VariableReads::Variable variable;
      absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "container", &variable.container);
      status.Update(tensorflow::GetNodeAttr(node.attrs(), "shared_name", &variable.name));
      status.Update(tensorflow::GetNodeAttr(node.attrs(), "dtype", &variable.dtype));
      if (!status.ok()) return status;
      if (!variable.name.empty() && variable.name != tensorflow::ResourceHandle::ANONYMOUS_NAME) {
        variables_[{node.id(), 0}] = variable;
        if (OnlyResolvedUses(node)) not_needed_.insert(&node);
      }
    } else if (op == "ReadVariableOp" || op == "ResourceGather") {
      const auto variable = variables_.find(Source(node, 0));
      if (variable == variables_.end()) return absl::OkStatus();
      const Value value = {Value::kVariable, static_cast<int>(e_->reads_.Add(variable->second))};
      if (op == "ReadVariableOp") {
        values_[{node.id(), 0}] = value;
      } else {
        resolved_gathers_[&node] = value;
        if (CanLookUp(node)) gathers_[&node] = value;
      }
    } else if ((op == "GatherV2" || op == "Gather") && CanLookUp(node)) {
      const Value params = Input(node, 0);
      const bool is_first_axis = op == "Gather" || ConstantAxis(node, 2) == 0;
      if ((params.kind == Value::kVariable || params.kind == Value::kConstant) && is_first_axis) {
        gathers_[&node] = params;
      }
    }
    return absl::OkStatus();
  }

  // The number of an argument or a return value, of which there are so many.
  static absl::Status Index(const Node& node, size_t limit, int* index) {
    absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "index", index);
    if (status.ok() && (*index < 0 || *index >= static_cast<int>(limit))) {
      return absl::InternalError("an argument or a return value that is no feed or fetch");
    }
    return status;
  }

  Value Constant(const Tensor& tensor) {
    e_->constants_.push_back(tensor);
    e_->constant_guards_.push_back(tensor);
    return {Value::kConstant, static_cast<int>(e_->constants_.size()) - 1};
  }

  // Whether a gather is one that Lookups know how to do.
  bool CanLookUp(const Node& node) const {
    const tensorflow::AttrValue* batch_dims = node.attrs().Find("batch_dims");
    const tensorflow::DataType index = node.input_type(1);
    return e_->env_.fuse_lookups && !e_->program_->has_side_effects() &&
           (index == tensorflow::DT_INT32 || index == tensorflow::DT_INT64) &&
           (batch_dims == nullptr || batch_dims->i() == 0) &&
           tensorflow::DataTypeCanUseMemcpy(node.output_type(0));
  }

  // A constant axis; a number that is none where it is not constant.
  int64_t ConstantAxis(const Node& node, int input) const {
    constexpr int64_t kNoAxis = INT64_MIN;
    const Value value = Input(node, input);
    if (value.kind != Value::kConstant) return kNoAxis;
    const Tensor& axis = e_->constants_[value.index];
    if (axis.NumElements() != 1) return kNoAxis;
    if (axis.dtype() == tensorflow::DT_INT32) return axis.flat<int32_t>()(0);
    if (axis.dtype() == tensorflow::DT_INT64) return axis.flat<int64_t>()(0);
    return kNoAxis;
  }

  static bool OnlyResolvedUses(const Node& node) {
    return std::all_of(node.out_edges().begin(), node.out_edges().end(), [](const Edge* edge) {
      const Node& user = *edge->dst();
      return edge->IsControlEdge() || user.type_string() == "ReadVariableOp" ||
             user.type_string() == "ResourceGather" ||
             (user.IsIdentity() && OnlyResolvedUses(user));
    });
  }

  // Second pass: concatenations along the last axis of gathers that nobody else needs.
  void FindConcatenation(const Node& node) {
    if (node.type_string() != "ConcatV2") return;
    const int64_t axis = ConstantAxis(node, node.num_inputs() - 1);
    if (axis < -1 || axis > tensorflow::TensorShape::MaxDimensions()) return;
    std::vector<const Node*> gathers;
    for (int i = 0; i + 1 < node.num_inputs(); ++i) {
      const Edge* edge;
      if (!node.input_edge(i, &edge).ok()) return;
      if (gathers_.count(edge->src()) > 0 && edge->src()->out_edges().size() == 1) {
        gathers.push_back(edge->src());
      }
    }
    if (gathers.size() < 2) return;
    concatenations_[&node] = static_cast<int>(axis);
    for (const Node* gather : gathers) absorbed_[gather] = &node;
  }

  // Third pass: steps, in an order in which as many lookups as possible come together.
  absl::Status AddInOrder(const std::vector<Node*>& order) {
    std::map<const Node*, int> pending;
    for (const Node* node : order) pending[Unit(node)] += node->in_edges().size();
    // By rank, so that the order does not depend on addresses.
    std::map<size_t, const Node*> ready;
    std::map<size_t, const Node*> ready_lookups;
    const auto become_ready = [&](const Node* unit) {
      const bool is_lookup = gathers_.count(unit) > 0 || concatenations_.count(unit) > 0;
      (is_lookup ? ready_lookups : ready)[ranks_[unit]] = unit;
    };
    const auto finish = [&](const Node* node) {
      for (const Edge* edge : node->out_edges()) {
        const Node* unit = Unit(edge->dst());
        if (--pending[unit] == 0) become_ready(unit);
      }
    };
    for (const auto& [unit, edges] : pending) {
      if (edges == 0) become_ready(unit);
    }
    // A gather's edge to the concatenation that it is a part of.
    for (const auto& [gather, concatenation] : absorbed_) {
      if (--pending[concatenation] == 0) become_ready(concatenation);
    }
    while (!ready.empty() || !ready_lookups.empty()) {
      if (ready.empty()) {
        std::vector<const Node*> lookups;
        for (const auto& [rank, node] : ready_lookups) lookups.push_back(node);
        ready_lookups.clear();
        absl::Status added = AddLookups(lookups);
        if (!added.ok()) return added;
        for (const Node* node : lookups) finish(node);
        continue;
      }
      const Node* node = ready.begin()->second;
      ready.erase(ready.begin());
      absl::Status added = Add(*node);
      if (!added.ok()) return tensorflow::AttachDef(added, node->def());
      finish(node);
    }
    const bool all = std::all_of(pending.begin(), pending.end(),
                                 [](const auto& unit) { return unit.second == 0; });
    return all ? absl::OkStatus() : absl::InternalError("the graph has no order");
  }

  // What a node is run as a part of; mostly itself.
  const Node* Unit(const Node* node) const {
    const auto absorbed = absorbed_.find(node);
    return absorbed == absorbed_.end() ? node : absorbed->second;
  }

  absl::Status Add(const Node& node) {
    if (node.IsRetval()) return AddFetch(node);
    if (!node.IsOp() || node.type_string() == "NoOp" || node.IsIdentity() ||
        not_needed_.count(&node) > 0 || values_.count({node.id(), 0}) > 0) {
      return absl::OkStatus();
    }
    const auto gather = resolved_gathers_.find(&node);
    if (gather != resolved_gathers_.end()) return AddResolvedGather(node, gather->second);
    OpKernel* kernel;
    absl::Status status = e_->MakeKernel(node.properties(), &kernel);
    if (!status.ok()) return status;
    std::vector<Value> inputs;
    for (int i = 0; i < node.num_inputs(); ++i) inputs.push_back(Input(node, i));
    return AddStep(node, kernel, inputs);
  }

  absl::Status AddFetch(const Node& node) {
    int index;
    absl::Status status = Index(node, e_->fetches_.size(), &index);
    if (!status.ok()) return status;
    e_->fetches_[index] = Input(node, 0);
    const bool known = e_->fetches_[index].kind != Value::kNone;
    return known ? absl::OkStatus() : absl::InternalError("a fetch comes from nowhere");
  }

  // A ResourceGather as a gather from the variable's value.
  absl::Status AddResolvedGather(const Node& node, Value params) {
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
    OpKernel* kernel;
    status = e_->MakeKernel(properties, &kernel);
    if (!status.ok()) return status;
    if (first_axis_.kind == Value::kNone) {
      Tensor zero(tensorflow::DT_INT32, tensorflow::TensorShape({}));
      zero.scalar<int32_t>()() = 0;
      first_axis_ = Constant(zero);
    }
    return AddStep(node, kernel, {params, Input(node, 1), first_axis_});
  }

  absl::Status AddLookups(const std::vector<const Node*>& nodes) {
    std::vector<Value> inputs;
    const auto add_input = [&inputs](Value value) {
      inputs.push_back(value);
      return static_cast<int>(inputs.size()) - 1;
    };
    const auto add_gather = [&](const Node& node) {
      const int params = add_input(gathers_.at(&node));
      return Lookups::Piece{params, add_input(Input(node, 1))};
    };
    std::vector<Lookups::Output> outputs;
    for (const Node* node : nodes) {
      const auto concatenation = concatenations_.find(node);
      if (concatenation == concatenations_.end()) {
        outputs.push_back({false, 0, {add_gather(*node)}});
        continue;
      }
      Lookups::Output output = {true, concatenation->second, {}};
      for (int i = 0; i + 1 < node->num_inputs(); ++i) {
        const Edge* edge;
        node->input_edge(i, &edge).IgnoreError();  // It was there before.
        const auto absorbed = absorbed_.find(edge->src());
        if (absorbed != absorbed_.end() && absorbed->second == node) {
          output.pieces.push_back(add_gather(*edge->src()));
        } else {
          output.pieces.push_back({-1, add_input(Input(*node, i))});
        }
      }
      outputs.push_back(std::move(output));
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
      values_[{nodes[i]->id(), 0}] = {Value::kSlot, static_cast<int>(e_->output_attrs_.size() + i)};
    }
    Step step;
    step.lookups = static_cast<int>(e_->lookups_.size());
    e_->lookups_.emplace_back(std::move(outputs));
    absl::Status added = AddInputs(&step, inputs);
    if (!added.ok()) return added;
    step.first_output = static_cast<int>(e_->output_attrs_.size());
    step.num_outputs = static_cast<int>(nodes.size());
    e_->output_attrs_.resize(e_->output_attrs_.size() + nodes.size());
    e_->steps_.push_back(std::move(step));
    return absl::OkStatus();
  }

  absl::Status AddStep(const Node& node, OpKernel* kernel, const std::vector<Value>& inputs) {
    Step step;
    step.kernel = kernel;
    step.async = kernel->AsAsync();
    absl::Status added = AddInputs(&step, inputs);
    if (!added.ok()) return added;
    step.first_output = static_cast<int>(e_->output_attrs_.size());
    step.num_outputs = kernel->num_outputs();
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

  absl::Status AddInputs(Step* step, const std::vector<Value>& inputs) {
    step->first_input = static_cast<int>(e_->inputs_.size());
    step->num_inputs = static_cast<int>(inputs.size());
    for (const Value& input : inputs) {
      if (input.kind == Value::kNone) return absl::InternalError("an input comes from nowhere");
      e_->inputs_.push_back(input);
      e_->input_attrs_.push_back(input.kind == Value::kSlot ? e_->output_attrs_[input.index]
                                                            : tensorflow::AllocatorAttributes());
    }
    return absl::OkStatus();
  }

  void FindLastUses() {
    const size_t slots = e_->output_attrs_.size();
    std::vector<int> uses(slots, 0);
    std::vector<int> maker(slots, -1);
    std::vector<int> last(slots, -1);
    for (size_t s = 0; s < e_->steps_.size(); ++s) {
      const Step& step = e_->steps_[s];
      for (int i = 0; i < step.num_outputs; ++i) {
        maker[step.first_output + i] = last[step.first_output + i] = s;
      }
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
    for (size_t slot = 0; slot < slots; ++slot) {
      const bool guarded = uses[slot] + (fetched[slot] ? 1 : 0) > 1;
      if (guarded) e_->steps_[maker[slot]].guard.push_back(slot);
      if (fetched[slot]) continue;
      Step& step = e_->steps_[last[slot]];
      step.dead.push_back(slot);
      if (!guarded) continue;
      const auto begin = e_->inputs_.begin() + step.first_input;
      const auto in_last = std::count_if(begin, begin + step.num_inputs, [&](const Value& v) {
        return v.kind == Value::kSlot && v.index == static_cast<int>(slot);
      });
      (in_last == 1 ? step.unguard : step.dead_guards).push_back(slot);
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
  std::map<const Node*, size_t> ranks_;
  std::map<std::pair<int, int>, Value> values_;  // by node and output
  std::map<std::pair<int, int>, VariableReads::Variable> variables_;
  std::set<const Node*> not_needed_;
  std::map<const Node*, Value> resolved_gathers_;  // with their variable
  // Those that Lookups do, with the table, which is known before a run.
  std::map<const Node*, Value> gathers_;
  std::map<const Node*, int> concatenations_;    // with their axis
  std::map<const Node*, const Node*> absorbed_;  // gathers, with their concatenation
  Value first_axis_;
};

absl::Status SerialExecutor::Make(const Program* program, const Env& env,
                                  std::unique_ptr<SerialExecutor>* executor) {
  std::unique_ptr<SerialExecutor> made(new SerialExecutor(program, env));
  absl::Status status = Builder(made.get()).Build();
  if (!status.ok()) return status;
  if (!made->reads_.empty()) env.writes->AddReader(made.get());
  *executor = std::move(made);
  return absl::OkStatus();
}

SerialExecutor::SerialExecutor(const Program* program, const Env& env)
    : program_(program),
      env_(env),
      functions_(std::make_unique<tensorflow::ProcessFunctionLibraryRuntime>(
          env.device_mgr, env.options->env, &env.options->config,
          program->graph()->versions().producer(), &program->graph()->flib_def(),
          env.options->config.graph_options().optimizer_options(), /*thread_pool=*/nullptr,
          /*parent=*/nullptr, /*session_metadata=*/nullptr,
          // As DirectSession's, for functions that run by themselves.
          tensorflow::Rendezvous::Factory(
              [](int64_t, const tensorflow::DeviceMgr* device_mgr,
                 tsl::core::RefCountPtr<tensorflow::Rendezvous>* rendezvous) {
                rendezvous->reset(new tensorflow::IntraProcessRendezvous(device_mgr));
                return absl::OkStatus();
              }))),
      library_(functions_->GetFLR(env.device->name())),
      host_(env.device->GetAllocator(tensorflow::AllocatorAttributes())),
      reads_(env.device->resource_manager(), env.writes) {}

SerialExecutor::~SerialExecutor() {
  env_.writes->RemoveReader(this);
  DropFrames();
}

void SerialExecutor::Written() {
  reads_.Drop();
  DropFrames();
}

void SerialExecutor::DropFrames() {
  for (auto& spare : spare_) delete spare.exchange(nullptr, std::memory_order_acquire);
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
    case Value::kSlot:
      return &frame->slots[value.index];
    case Value::kNone:
      break;
  }
  return nullptr;  // Refused by Builder.
}

std::unique_ptr<SerialExecutor::Frame> SerialExecutor::TakeFrame() {
  for (auto& spare : spare_) {
    if (spare.load(std::memory_order_relaxed) == nullptr) continue;
    if (Frame* frame = spare.exchange(nullptr, std::memory_order_acquire)) {
      return std::unique_ptr<Frame>(frame);
    }
  }
  auto frame = std::make_unique<Frame>(env_.closing);
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
  // Values that are out of date are not to stay in memory.
  if (!reads_.empty() && !reads_.IsUpToDate(frame->variables_as_of)) return;
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
    return absl::InvalidArgumentError(
        absl::StrCat("there are ", feeds.size(), " tensors to feed, not ", feed_types_.size()));
  }
  for (size_t i = 0; i < feeds.size(); ++i) {
    if (feeds[i]->dtype() != feed_types_[i] && feed_types_[i] != tensorflow::DT_INVALID) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tensor to feed to ", program_->feeds()[i], " has type ",
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

  *outcome = Outcome::kNotThisTime;
  if (!reads_.empty() && reads_.HasFailed()) return absl::OkStatus();
  std::unique_ptr<Frame> frame = TakeFrame();
  if (!reads_.empty() && !reads_.Refresh(&frame->variables_as_of, &frame->variables)) {
    return absl::OkStatus();
  }
  *outcome = Outcome::kRan;
  // A reference of our own keeps kernels from writing into the caller's tensors.
  for (size_t i = 0; i < feeds.size(); ++i) frame->feeds[i] = *feeds[i];

  status = RunSteps(frame.get(), deadline, outcome);
  // A frame that has seen a failure is not used again: there may be anything in it.
  if (!status.ok() || *outcome != Outcome::kRan) return status;

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

absl::Status SerialExecutor::RunSteps(Frame* frame, std::optional<absl::Time> deadline,
                                      Outcome* outcome) {
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
    if (frame->cancellation.IsCancelled()) {
      return absl::CancelledError("the session group was closed while the request ran");
    }
    if (deadline.has_value() && absl::Now() >= *deadline) {
      return absl::DeadlineExceededError(absl::StrCat("the request's timeout passed when ",
                                                      &step - steps_.data(), " of the graph's ",
                                                      steps_.size(), " steps had been run"));
    }
    for (int slot : step.unguard) frame->guards[slot] = Tensor();
    if (step.lookups >= 0) {
      const Lookups::Outcome found = lookups_[step.lookups].Run(
          frame->inputs.data() + step.first_input, host_, frame->slots.data() + step.first_output);
      if (found == Lookups::Outcome::kNoMemory) {
        return absl::ResourceExhaustedError("out of memory for the rows of a lookup");
      }
      if (found != Lookups::Outcome::kDone) {
        const bool always = found == Lookups::Outcome::kBadShape;
        *outcome = always ? Outcome::kNotPossible : Outcome::kNotThisTime;
        return absl::OkStatus();
      }
      Guard(step, frame);
      Forget(step, frame);
      continue;
    }
    params.op_kernel = step.kernel;
    params.inputs = {frame->inputs.data() + step.first_input, static_cast<size_t>(step.num_inputs)};
    params.input_alloc_attrs = {input_attrs_.data() + step.first_input,
                                static_cast<size_t>(step.num_inputs)};
    params.output_attr_array = output_attrs_.data() + step.first_output;
    tensorflow::OpKernelContext context(&params, step.num_outputs);
    if (step.async == nullptr) {
      step.kernel->Compute(&context);
    } else {
      absl::Notification done;
      env_.device->ComputeAsync(step.async, &context, [&done] { done.Notify(); });
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
      frame->slots[step.first_output + i] = std::move(*output.tensor);
      delete output.tensor;
    }
    Guard(step, frame);
    Forget(step, frame);
  }
  return absl::OkStatus();
}

void SerialExecutor::Guard(const Step& step, Frame* frame) const {
  for (int slot : step.guard) frame->guards[slot] = frame->slots[slot];
}

void SerialExecutor::Forget(const Step& step, Frame* frame) const {
  for (int slot : step.dead) frame->slots[slot] = Tensor();
  for (int slot : step.dead_guards) frame->guards[slot] = Tensor();
}

}  // namespace session_group
