#include "execute/layout.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compile/control_flow.h"
#include "graph/private_buffer.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/resource_handle.h"

namespace session_group {

using tensorflow::Edge;
using tensorflow::Node;
using tensorflow::NodeProperties;
using tensorflow::OpKernel;
using tensorflow::Tensor;

class Layout::Builder {
 public:
  Builder(Program& program, const Options& options, VariableReads* reads, Layout* layout)
      : program_(program),
        flow_(program.control_flow()),
        options_(options),
        reads_(reads),
        l_(layout) {}

  absl::Status Build() {
    const std::vector<const Node*>& order = flow_.order();
    for (size_t i = 0; i < order.size(); ++i) ranks_[order[i]] = i;
    l_->num_literals = static_cast<int>(flow_.literals().size());
    l_->feed_types = program_.feed_types();
    l_->fetches.resize(program_.num_fetches());
    l_->fetch_conditions.resize(program_.num_fetches(), kAlways);
    children_.resize(flow_.loops().size() + 1);
    for (const Node* node : order) {
      if (node->IsSource() || node->IsSink()) continue;
      children_[flow_.loop(*node) + 1].push_back(node);
      absl::Status found = FindValue(*node);
      if (!found.ok()) return tensorflow::AttachDef(found, node->def());
    }
    for (size_t i = 0; i < flow_.loops().size(); ++i) loop_units_.push_back(children_[i + 1][0]);
    for (const Node* node : order) FindConcatenation(*node);
    absl::Status added = AddRange(ControlFlow::kNoLoop);
    if (!added.ok()) return added;
    FindLastUses();
    return absl::OkStatus();
  }

 private:
  using Value = Layout::Value;

  bool Resolves() const { return options_.resolve_reads && !program_.writes(); }

  // First pass: what is there before the first step.
  absl::Status FindValue(const Node& node) {
    const std::string& op = node.type_string();
    if (node.IsArg()) {
      int index;
      absl::Status status = Index(node, l_->feed_types.size(), &index);
      if (!status.ok()) return status;
      l_->feed_types[index] = node.output_type(0);
      values_[{node.id(), 0}] = {Value::kFeed, index};
    } else if (const Tensor* constant = program_.constant(node)) {
      values_[{node.id(), 0}] = Constant(*constant);
    } else if (op == "VarHandleOp" && Resolves()) {
      VariableReads::Variable variable;
      absl::Status status = tensorflow::GetNodeAttr(node.attrs(), "container", &variable.container);
      status.Update(tensorflow::GetNodeAttr(node.attrs(), "shared_name", &variable.name));
      status.Update(tensorflow::GetNodeAttr(node.attrs(), "dtype", &variable.dtype));
      if (!status.ok()) return status;
      if (variable.name.empty() || variable.name == tensorflow::ResourceHandle::ANONYMOUS_NAME) {
        return absl::OkStatus();
      }
      if (options_.unresolved != nullptr && options_.unresolved->count(variable.Key()) > 0) {
        unresolved_.insert({node.id(), 0});
        return absl::OkStatus();
      }
      variables_[{node.id(), 0}] = variable;
      tensorflow::PartialTensorShape shape;
      if (tensorflow::GetNodeAttr(node.attrs(), "shape", &shape).ok()) {
        ranks_of_variables_[variable.Key()] = shape.dims();
      }
      if (OnlyResolvedUses(node)) not_needed_.insert(&node);
    } else if (op == "ReadVariableOp" || op == "ResourceGather") {
      const auto variable = variables_.find(Source(node, 0));
      if (variable == variables_.end()) return absl::OkStatus();
      const Value value = {Value::kVariable, static_cast<int>(reads_->Add(variable->second))};
      const auto rank = ranks_of_variables_.find(variable->second.Key());
      if (rank != ranks_of_variables_.end()) ranks_of_reads_[value.index] = rank->second;
      if (op == "ReadVariableOp") {
        values_[{node.id(), 0}] = value;
      } else {
        resolved_gathers_[&node] = value;
        if (CanLookUp(node)) gathers_[&node] = value;
      }
    } else if (op == "GatherV2" || op == "Gather") {
      const bool is_first_axis = op == "Gather" || ConstantAxis(node, 2) == 0;
      if (!is_first_axis || !CanLookUp(node)) return absl::OkStatus();
      const Value params = Input(node, 0);
      if (params.kind == Value::kVariable || params.kind == Value::kConstant) {
        gathers_[&node] = params;
      } else {
        FindUnresolvedGather(node);
      }
    }
    return absl::OkStatus();
  }

  // A gather from a variable that must be read where it lies, under its lock: as two operations, it
  // would copy all of it.
  void FindUnresolvedGather(const Node& node) {
    const Edge* edge;
    if (!node.input_edge(0, &edge).ok()) return;
    const Node& read = *edge->src();
    if (read.type_string() != "ReadVariableOp" || unresolved_.count(Source(read, 0)) == 0) return;
    locked_gathers_.insert(&node);
    const bool only =
        std::all_of(read.out_edges().begin(), read.out_edges().end(), [&](const Edge* use) {
          return use->IsControlEdge() || locked_gathers_.count(use->dst()) > 0;
        });
    if (only) not_needed_.insert(&read);
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
    // References to it are counted by this session alone.
    l_->constants.push_back(PrivateBuffer::View(tensor));
    l_->constant_guards.push_back(l_->constants.back());
    return {Value::kConstant, static_cast<int>(l_->constants.size()) - 1};
  }

  // Whether a gather is one that Lookups know how to do.
  bool CanLookUp(const Node& node) const {
    const tensorflow::AttrValue* batch_dims = node.attrs().Find("batch_dims");
    const tensorflow::DataType index = node.input_type(1);
    return options_.fuse_lookups &&
           (index == tensorflow::DT_INT32 || index == tensorflow::DT_INT64) &&
           (batch_dims == nullptr || batch_dims->i() == 0) &&
           tensorflow::DataTypeCanUseMemcpy(node.output_type(0));
  }

  // A constant axis; a number that is none where it is not constant.
  int64_t ConstantAxis(const Node& node, int input) const {
    constexpr int64_t kNoAxis = INT64_MIN;
    const Value value = Input(node, input);
    if (value.kind != Value::kConstant) return kNoAxis;
    const Tensor& axis = l_->constants[value.index];
    if (axis.NumElements() != 1) return kNoAxis;
    if (axis.dtype() == tensorflow::DT_INT32) return axis.flat<int32_t>()(0);
    if (axis.dtype() == tensorflow::DT_INT64) return axis.flat<int64_t>()(0);
    return kNoAxis;
  }

  // Whether all that use a handle read the variable's value; what passes it on is looked through.
  bool OnlyResolvedUses(const Node& node) const {
    return std::all_of(node.out_edges().begin(), node.out_edges().end(), [this](const Edge* edge) {
      const Node& user = *edge->dst();
      if (edge->IsControlEdge() || user.type_string() == "ReadVariableOp" ||
          user.type_string() == "ResourceGather") {
        return true;
      }
      return (user.IsIdentity() || user.IsEnter() || user.IsSwitch()) && OnlyResolvedUses(user);
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
      const Node* gather = edge->src();
      // From a table of other rank, they would be concatenated along another axis than the last.
      if (gathers_.count(gather) > 0 && MayBeMatrix(gathers_.at(gather)) &&
          gather->out_edges().size() == 1 && RunTogether(*gather, node)) {
        gathers.push_back(gather);
      }
    }
    if (gathers.size() < 2) return;
    concatenations_[&node] = static_cast<int>(axis);
    for (const Node* gather : gathers) absorbed_[gather] = &node;
  }

  // Whether a table has two dimensions, as far as that is known before a run.
  bool MayBeMatrix(Value table) const {
    if (table.kind == Value::kConstant) return l_->constants[table.index].dims() == 2;
    const auto rank = ranks_of_reads_.find(table.index);
    return rank == ranks_of_reads_.end() || rank->second == 2 || rank->second < 0;
  }

  // Whether one is run exactly when the other is.
  bool RunTogether(const Node& a, const Node& b) const {
    return flow_.loop(a) == flow_.loop(b) && flow_.in_body(a) == flow_.in_body(b) &&
           flow_.condition(a) == flow_.condition(b);
  }

  bool IsLookup(const Node* unit) const {
    return gathers_.count(unit) > 0 || concatenations_.count(unit) > 0;
  }

  // What a node is run as a part of within a loop: a concatenation, a loop in this loop, or itself.
  const Node* Unit(const Node* node, int loop) const {
    int own = flow_.loop(*node);
    if (own != loop) {
      while (flow_.loops()[own].parent != loop) own = flow_.loops()[own].parent;
      return loop_units_[own];
    }
    const auto absorbed = absorbed_.find(node);
    return absorbed == absorbed_.end() ? node : absorbed->second;
  }

  bool IsWithin(const Node& node, int loop) const {
    for (int own = flow_.loop(node);; own = flow_.loops()[own].parent) {
      if (own == loop) return true;
      if (own == ControlFlow::kNoLoop) return false;
    }
  }

  bool UnitInBody(const Node* unit, int loop) const {
    const int own = flow_.loop(*unit);
    return own == loop ? flow_.in_body(*unit) : flow_.loops()[own].in_body;
  }

  // Third pass: the steps of a loop, or of what is in none, in an order in which as many lookups as
  // possible come together. What a loop's test needs comes before the test.
  absl::Status AddRange(int loop) {
    std::map<const Node*, int> pending;
    std::map<const Node*, std::vector<const Node*>> members;
    for (int i = loop; i < static_cast<int>(flow_.loops().size()); ++i) {
      for (const Node* node : children_[i + 1]) {
        if (!IsWithin(*node, loop)) continue;
        const Node* unit = Unit(node, loop);
        members[unit].push_back(node);
        int& count = pending[unit];
        for (const Edge* edge : node->in_edges()) count += IsNeeded(*edge, unit, loop);
      }
    }
    // By rank, so that the order does not depend on addresses; first those outside of a loop's
    // body.
    std::map<size_t, const Node*> ready[2];
    std::map<size_t, const Node*> ready_lookups[2];
    const auto become_ready = [&](const Node* unit) {
      const bool in_body = UnitInBody(unit, loop);
      (IsLookup(unit) ? ready_lookups : ready)[in_body][ranks_[unit]] = unit;
    };
    const auto finish = [&](const Node* unit) {
      for (const Node* node : members[unit]) {
        for (const Edge* edge : node->out_edges()) {
          if (edge->dst()->IsSink() || !IsWithin(*edge->dst(), loop)) continue;
          const Node* user = Unit(edge->dst(), loop);
          if (IsNeeded(*edge, user, loop) && --pending[user] == 0) become_ready(user);
        }
      }
    };
    size_t left = pending.size();
    for (const auto& [unit, edges] : pending) {
      if (edges == 0) become_ready(unit);
    }
    const bool is_loop = loop != ControlFlow::kNoLoop;
    for (const bool in_body : {false, true}) {
      auto& now = ready[in_body];
      auto& lookups = ready_lookups[in_body];
      while (!now.empty() || !lookups.empty()) {
        if (now.empty()) {
          const std::vector<const Node*> nodes = TakeLookups(&lookups);
          absl::Status added = AddLookups(nodes);
          if (!added.ok()) return added;
          left -= nodes.size();
          for (const Node* node : nodes) finish(node);
          continue;
        }
        const Node* unit = now.begin()->second;
        now.erase(now.begin());
        const int own = flow_.loop(*unit);
        absl::Status added = own == loop ? Add(*unit) : AddLoop(own);
        if (!added.ok()) return tensorflow::AttachDef(added, unit->def());
        --left;
        finish(unit);
      }
      if (is_loop && !in_body) {
        absl::Status added = AddTest(loop);
        if (!added.ok()) return added;
      }
    }
    return left == 0 ? absl::OkStatus() : absl::InternalError("the graph has no order");
  }

  // Whether a unit of this loop has to wait for what the edge brings.
  bool IsNeeded(const Edge& edge, const Node* unit, int loop) const {
    return !edge.src()->IsSource() && !edge.src()->IsNextIteration() &&
           IsWithin(*edge.src(), loop) && Unit(edge.src(), loop) != unit;
  }

  // Those that are run exactly when the first is.
  std::vector<const Node*> TakeLookups(std::map<size_t, const Node*>* ready) const {
    std::vector<const Node*> nodes;
    for (auto next = ready->begin(); next != ready->end();) {
      if (!nodes.empty() && !RunTogether(*nodes[0], *next->second)) {
        ++next;
        continue;
      }
      nodes.push_back(next->second);
      next = ready->erase(next);
    }
    return nodes;
  }

  absl::Status Add(const Node& node) {
    if (node.IsRetval()) return AddFetch(node);
    if (node.IsSwitch()) return flow_.IsLoopSwitch(node) ? absl::OkStatus() : AddBranch(node);
    if (node.IsMerge()) return VariableOf(node) != nullptr ? absl::OkStatus() : AddMerge(node);
    if (!node.IsOp() || node.type_string() == "NoOp" || node.IsIdentity() || node.IsEnter() ||
        node.IsExit() || node.IsNextIteration() || node.IsLoopCond() ||
        node.type_string() == "ControlTrigger" || not_needed_.count(&node) > 0 ||
        values_.count({node.id(), 0}) > 0) {
      return absl::OkStatus();
    }
    OpKernel* kernel;
    std::vector<Value> inputs;
    absl::Status status = MakeKernel(node, &kernel, &inputs);
    return status.ok() ? AddKernel(node, kernel, inputs) : status;
  }

  absl::Status AddFetch(const Node& node) {
    int index;
    absl::Status status = Index(node, l_->fetches.size(), &index);
    if (!status.ok()) return status;
    l_->fetches[index] = Input(node, 0);
    l_->fetch_conditions[index] = ConditionOf(flow_.condition(node));
    const bool known = l_->fetches[index].kind != Value::kNone;
    return known ? absl::OkStatus() : absl::InternalError("a fetch comes from nowhere");
  }

  // The kernel of a node, and what it reads.
  absl::Status MakeKernel(const Node& node, OpKernel** kernel, std::vector<Value>* inputs) {
    const auto gather = resolved_gathers_.find(&node);
    if (gather != resolved_gathers_.end()) {
      *inputs = {gather->second, Input(node, 1), FirstAxis()};
      return MakeGather(node, kernel);
    }
    if (locked_gathers_.count(&node) > 0) {
      const Edge* read;
      node.input_edge(0, &read).IgnoreError();  // It was there before.
      *inputs = {Input(*read->src(), 0), Input(node, 1)};
      return MakeLockedGather(node, kernel);
    }
    for (int i = 0; i < node.num_inputs(); ++i) inputs->push_back(Input(node, i));
    const tensorflow::AttrValue* is_constant = node.attrs().Find("is_filter_const");
    if (is_constant == nullptr || inputs->size() < 2 || (*inputs)[1].kind != Value::kConstant) {
      return Create(node.properties(), kernel);
    }
    // A constant, whether TensorFlow could see that or not: oneDNN prepares it once, in the kernel.
    return program_.GetKernel(
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

  absl::Status Create(tensorflow::NodeDef def, OpKernel** kernel) {
    std::shared_ptr<const NodeProperties> properties;
    absl::Status status = NodeProperties::CreateFromNodeDef(
        std::move(def), program_.graph()->op_registry(), &properties);
    return status.ok() ? Create(properties, kernel) : status;
  }

  absl::Status Create(const std::shared_ptr<const NodeProperties>& properties, OpKernel** kernel) {
    absl::Status status = options_.library->CreateKernel(properties, kernel);
    if (status.ok()) l_->kernels.emplace_back(*kernel);
    return status;
  }

  // A ResourceGather as a gather from the variable's value.
  absl::Status MakeGather(const Node& node, OpKernel** kernel) {
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

  // The other way around.
  absl::Status MakeLockedGather(const Node& node, OpKernel** kernel) {
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

  Value FirstAxis() {
    if (first_axis_.kind == Value::kNone) {
      Tensor zero(tensorflow::DT_INT32, tensorflow::TensorShape({}));
      zero.scalar<int32_t>()() = 0;
      first_axis_ = Constant(zero);
    }
    return first_axis_;
  }

  absl::Status AddKernel(const Node& node, OpKernel* kernel, const std::vector<Value>& inputs) {
    Step step = NewStep(Step::kKernel, flow_.condition(node));
    absl::Status set = SetKernel(kernel, inputs, &step);
    if (!set.ok()) return set;
    if (options_.choose_kernels && step.async == nullptr) FindOther(node, &step);
    for (int i = 0; i < step.num_outputs; ++i) {
      values_[{node.id(), i}] = {Value::kSlot, step.first_output + i};
    }
    Push(std::move(step));
    return absl::OkStatus();
  }

  // Where there is another kernel for the same.
  void FindOther(const Node& node, Step* step) {
    std::optional<tensorflow::NodeDef> def = WithoutOneDnn(node, *program_.graph()->op_registry());
    OpKernel* other;
    if (!def.has_value() || !Create(std::move(*def), &other).ok()) return;
    // It takes and gives the same, or it is another operation.
    if (other->input_types() != step->kernel->input_types() ||
        other->output_types() != step->kernel->output_types()) {
      return;
    }
    step->other = other;
    step->choice = program_.choice(node);
  }

  // With slots of its own for what it gives.
  absl::Status SetKernel(OpKernel* kernel, const std::vector<Value>& inputs, Step* step) {
    step->kernel = kernel;
    step->async = kernel->AsAsync();
    absl::Status added = AddInputs(step, inputs);
    if (!added.ok()) return added;
    step->first_output = static_cast<int>(l_->output_attrs.size());
    step->num_outputs = kernel->num_outputs();
    for (int i = 0; i < step->num_outputs; ++i) {
      tensorflow::AllocatorAttributes attr;
      attr.set_on_host(kernel->output_memory_types()[i] == tensorflow::HOST_MEMORY);
      l_->output_attrs.push_back(attr);
    }
    l_->may_wait |= step->async != nullptr;
    l_->needs_step |= step->async != nullptr ||
                      absl::StartsWith(kernel->type_string(), "TensorArray") ||
                      absl::StartsWith(kernel->type_string(), "Stack");
    return absl::OkStatus();
  }

  absl::Status AddBranch(const Node& node) {
    const std::pair<int, int> branch = flow_.Branch(flow_.loop(node), node);
    if (!branched_.insert(branch.first).second) return absl::OkStatus();
    Step step = NewStep(Step::kBranch, flow_.EdgeCondition(*ControlFlow::Predicate(node)));
    step.number = branch.first;
    step.num_outputs = branch.second;
    absl::Status added = AddInputs(&step, {Input(node, 1)});
    if (!added.ok()) return added;
    step.first_output = 0;
    Push(std::move(step));
    return absl::OkStatus();
  }

  absl::Status AddMerge(const Node& node) {
    // One that says itself whether it got a value is always looked at.
    Step step = NewStep(Step::kMerge, flow_.MergeLiteral(node) < 0 ? flow_.condition(node)
                                                                   : ControlFlow::Condition());
    step.number = static_cast<int>(l_->merges.size());
    Merge merge;
    std::vector<Value> inputs;
    for (int i = 0; i < node.num_inputs(); ++i) {
      const Edge* edge;
      absl::Status found = node.input_edge(i, &edge);
      if (!found.ok()) return found;
      merge.conditions.push_back(ConditionOf(flow_.EdgeCondition(*edge)));
      inputs.push_back(Input(node, i));
    }
    merge.literal = flow_.MergeLiteral(node);
    const auto& edges = node.out_edges();
    merge.gives_side =
        std::any_of(edges.begin(), edges.end(), [](auto* edge) { return edge->src_output() == 1; });
    l_->merges.push_back(std::move(merge));
    absl::Status added = AddInputs(&step, inputs);
    if (!added.ok()) return added;
    step.first_output = NewSlots(node.num_outputs());
    step.num_outputs = node.num_outputs();
    for (int i = 0; i < step.num_outputs; ++i) {
      values_[{node.id(), i}] = {Value::kSlot, step.first_output + i};
    }
    Push(std::move(step));
    return absl::OkStatus();
  }

  absl::Status AddLoop(int number) {
    const ControlFlow::Loop& loop = flow_.loops()[number];
    Step step = NewStep(Step::kLoop, loop.condition);
    const int own = static_cast<int>(l_->loops.size());
    step.number = own;
    l_->loops.emplace_back();
    l_->loops[own].first_literal = loop.first_literal;
    l_->loops[own].num_literals = loop.num_literals;
    std::vector<Value> firsts;
    std::vector<Variable> variables;
    for (const ControlFlow::Variable& variable : loop.variables) {
      if (variable.is_invariant) continue;
      firsts.push_back(Input(*variable.enter, 0));
      Variable placed;
      placed.slot = NewSlots(1);
      placed.next = NewSlots(1);
      values_[{variable.merge->id(), 0}] = {Value::kSlot, placed.slot};
      variables.push_back(std::move(placed));
    }
    absl::Status added = AddInputs(&step, firsts);
    if (!added.ok()) return added;
    // What a loop gives is made by its step.
    step.first_output = static_cast<int>(l_->output_attrs.size());
    size_t v = 0;
    for (const ControlFlow::Variable& variable : loop.variables) {
      if (variable.is_invariant) continue;
      for (const Node* exit : variable.exits) {
        variables[v].exits.push_back(NewSlots(1));
        values_[{exit->id(), 0}] = {Value::kSlot, variables[v].exits.back()};
      }
      ++v;
    }
    step.num_outputs = static_cast<int>(l_->output_attrs.size()) - step.first_output;
    l_->loops[own].variables = std::move(variables);
    const int at = Push(std::move(step));
    owners_.push_back(at);
    own_numbers_[number] = own;
    added = AddRange(number);
    if (added.ok()) added = AddAdvance(number);
    owners_.pop_back();
    l_->steps[at].next = static_cast<int>(l_->steps.size());
    return added;
  }

  absl::Status AddTest(int number) {
    Step step = NewStep(Step::kTest, {});
    absl::Status added = AddInputs(&step, {Input(*flow_.loops()[number].test, 0)});
    if (added.ok()) l_->loops[own_numbers_[number]].test = Push(std::move(step));
    return added;
  }

  absl::Status AddAdvance(int number) {
    Step step = NewStep(Step::kAdvance, {});
    step.number = own_numbers_[number];
    std::vector<Value> nexts;
    for (const ControlFlow::Variable& variable : flow_.loops()[number].variables) {
      if (!variable.is_invariant) nexts.push_back(Input(*variable.next, 0));
    }
    absl::Status added = AddInputs(&step, nexts);
    if (added.ok()) l_->loops[step.number].advance = Push(std::move(step));
    return added;
  }

  absl::Status AddLookups(const std::vector<const Node*>& nodes) {
    std::vector<Value> inputs;
    const auto add_input = [&inputs](Value value) {
      inputs.push_back(value);
      return static_cast<int>(inputs.size()) - 1;
    };
    const auto add_gather = [&](const Node& node) {
      ++l_->num_gathers;
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
        const Node* gather = Absorbed(*node, i);
        output.pieces.push_back(gather != nullptr ? add_gather(*gather)
                                                  : Lookups::Piece{-1, add_input(Input(*node, i))});
      }
      outputs.push_back(std::move(output));
    }
    Step step = NewStep(Step::kLookups, flow_.condition(*nodes[0]));
    step.number = static_cast<int>(l_->lookups.size());
    absl::Status added = AddInputs(&step, inputs);
    if (!added.ok()) return added;
    step.num_outputs = static_cast<int>(nodes.size());
    step.first_output = NewSlots(step.num_outputs);
    for (size_t i = 0; i < nodes.size(); ++i) {
      values_[{nodes[i]->id(), 0}] = {Value::kSlot, step.first_output + static_cast<int>(i)};
    }
    Fused fused = {Lookups(std::move(outputs)), {}, {}};
    for (size_t i = 0; i < nodes.size(); ++i) {
      added = AddUnfused(*nodes[i], step.first_output + static_cast<int>(i), &fused);
      if (!added.ok()) return added;
    }
    l_->lookups.push_back(std::move(fused));
    Push(std::move(step));
    return absl::OkStatus();
  }

  // The gather that became a part of a concatenation, as this input of it; NULL for none.
  const Node* Absorbed(const Node& concatenation, int input) const {
    const Edge* edge;
    if (!concatenation.input_edge(input, &edge).ok()) return nullptr;
    const auto absorbed = absorbed_.find(edge->src());
    const bool is = absorbed != absorbed_.end() && absorbed->second == &concatenation;
    return is ? edge->src() : nullptr;
  }

  // The kernels of a node that Lookups do, and of the gathers that are a part of it.
  absl::Status AddUnfused(const Node& node, int slot, Fused* fused) {
    std::map<int, int> gathered;  // slots, by the input
    for (int i = 0; i < node.num_inputs(); ++i) {
      const Node* gather = Absorbed(node, i);
      if (gather == nullptr) continue;
      gathered[i] = NewSlots(1);
      fused->temporaries.push_back(gathered[i]);
      absl::Status added = AddUnfusedKernel(*gather, gathered[i], {}, fused);
      if (!added.ok()) return added;
    }
    return AddUnfusedKernel(node, slot, gathered, fused);
  }

  absl::Status AddUnfusedKernel(const Node& node, int slot, const std::map<int, int>& gathered,
                                Fused* fused) {
    Step step;
    OpKernel* kernel;
    std::vector<Value> inputs;
    absl::Status status = MakeKernel(node, &kernel, &inputs);
    if (!status.ok()) return status;
    for (const auto& [input, from] : gathered) inputs[input] = {Value::kSlot, from};
    step.kernel = kernel;
    status = AddInputs(&step, inputs);
    step.first_output = slot;
    step.num_outputs = 1;
    fused->kernels.push_back(std::move(step));
    return status;
  }

  Step NewStep(Step::Kind kind, const ControlFlow::Condition& condition) {
    Step step;
    step.kind = kind;
    step.condition = ConditionOf(condition);
    return step;
  }

  int ConditionOf(const ControlFlow::Condition& condition) {
    if (condition.empty()) return kAlways;
    const auto known = std::find(l_->conditions.begin(), l_->conditions.end(), condition);
    if (known != l_->conditions.end()) return static_cast<int>(known - l_->conditions.begin());
    l_->conditions.push_back(condition);
    return static_cast<int>(l_->conditions.size()) - 1;
  }

  int NewSlots(int n) {
    const int first = static_cast<int>(l_->output_attrs.size());
    l_->output_attrs.resize(first + n);
    return first;
  }

  int Push(Step step) {
    step.next = static_cast<int>(l_->steps.size()) + 1;
    owner_.push_back(owners_.empty() ? -1 : owners_.back());
    l_->steps.push_back(std::move(step));
    return static_cast<int>(l_->steps.size()) - 1;
  }

  absl::Status AddInputs(Step* step, const std::vector<Value>& inputs) {
    step->first_input = static_cast<int>(l_->inputs.size());
    step->num_inputs = static_cast<int>(inputs.size());
    for (const Value& input : inputs) {
      if (input.kind == Value::kNone) return absl::InternalError("an input comes from nowhere");
      l_->inputs.push_back(input);
      l_->input_attrs.push_back(input.kind == Value::kSlot ? l_->output_attrs[input.index]
                                                           : tensorflow::AllocatorAttributes());
    }
    return absl::OkStatus();
  }

  // Who uses a slot, as seen from where it is made: uses within a loop are the loop's.
  struct Uses {
    int maker = -1;          // a step
    int home = -1;           // the step of the loop that it is made in
    bool of_turn = false;    // made by the loop itself, for each turn
    bool is_nested = false;  // used within a loop that it is not made in
    int count = 0;
    int last = -1;    // a step
    int at_last = 0;  // how many of them
  };

  void FindLastUses() {
    std::vector<Uses> uses(l_->output_attrs.size());
    std::vector<Variable*> variables(uses.size(), nullptr);
    for (size_t s = 0; s < l_->steps.size(); ++s) {
      const Step& step = l_->steps[s];
      const int at = static_cast<int>(s);
      if (step.kind == Step::kBranch) continue;  // Its outputs are literals.
      for (int i = 0; i < step.num_outputs; ++i) {
        Uses& made = uses[step.first_output + i];
        made.maker = made.last = at;
        made.home = owner_[s];
      }
      if (step.kind != Step::kLoop) continue;
      for (Variable& variable : l_->loops[step.number].variables) {
        Uses& made = uses[variable.slot];
        made.home = made.maker = at;
        made.of_turn = true;
        variables[variable.slot] = &variable;
      }
    }
    for (size_t s = 0; s < l_->steps.size(); ++s) {
      const Step& step = l_->steps[s];
      for (int i = 0; i < step.num_inputs; ++i) {
        const Value& input = l_->inputs[step.first_input + i];
        if (input.kind != Value::kSlot) continue;
        Uses& used = uses[input.index];
        int by = static_cast<int>(s);
        while (owner_[by] != used.home) {
          by = owner_[by];
          used.is_nested = true;
        }
        ++used.count;
        if (by > used.last) used.at_last = 0;
        used.last = std::max(used.last, by);
        ++used.at_last;
      }
    }
    std::vector<bool> fetched(uses.size(), false);
    for (const Value& fetch : l_->fetches) {
      if (fetch.kind == Value::kSlot) fetched[fetch.index] = true;
    }
    for (size_t slot = 0; slot < uses.size(); ++slot) {
      const Uses& used = uses[slot];
      if (used.maker < 0) continue;  // of a loop or of lookups, which see to it
      const int number = static_cast<int>(slot);
      if (used.of_turn) {
        PlaceVariable(number, used, variables[slot]);
        continue;
      }
      const bool guarded = used.count + (fetched[slot] ? 1 : 0) > 1 || used.is_nested;
      if (guarded) l_->steps[used.maker].guard.push_back(number);
      if (fetched[slot]) continue;
      Forget(number, used, guarded);
    }
    FindMoved(uses, fetched);
  }

  void Forget(int slot, const Uses& used, bool guarded) {
    Step& step = l_->steps[used.last];
    step.dead.push_back(slot);
    if (!guarded) return;
    (used.at_last == 1 && !used.is_nested ? step.unguard : step.dead_guards).push_back(slot);
  }

  // A variable is made by the turn before, and stays for what the loop gives where there is no
  // other turn, so only in the loop's body may anybody write it in place.
  void PlaceVariable(int slot, const Uses& used, Variable* variable) {
    const int test = l_->loops[l_->steps[used.home].number].test;
    const bool stays = !variable->exits.empty() && used.last <= test;
    variable->is_guarded = used.count > 1 || used.is_nested || (stays && used.count > 0);
    if (used.count > 0 && !stays) Forget(slot, used, variable->is_guarded);
  }

  // First values of loop variables that the loop alone needs.
  void FindMoved(const std::vector<Uses>& uses, const std::vector<bool>& fetched) {
    for (size_t s = 0; s < l_->steps.size(); ++s) {
      const Step& step = l_->steps[s];
      if (step.kind != Step::kLoop) continue;
      for (int i = 0; i < step.num_inputs; ++i) {
        const Value& first = l_->inputs[step.first_input + i];
        if (first.kind != Value::kSlot || fetched[first.index]) continue;
        const Uses& used = uses[first.index];
        l_->loops[step.number].variables[i].is_moved =
            used.last == static_cast<int>(s) && used.at_last == 1 && !used.is_nested;
      }
    }
  }

  // The node and the output that an input comes from, past all that only passes it on.
  std::pair<int, int> Source(const Node& node, int input) const {
    const Edge* edge;
    if (input >= node.num_inputs() || !node.input_edge(input, &edge).ok()) return {-1, 0};
    const Node& from = *edge->src();
    if (from.IsIdentity() || from.IsSwitch() || from.IsLoopCond() || from.IsEnter()) {
      return Source(from, 0);
    }
    if (from.IsExit() || from.IsMerge()) {
      const ControlFlow::Variable* variable = VariableOf(from);
      if (variable != nullptr && variable->is_invariant && edge->src_output() == 0) {
        return Source(*variable->enter, 0);
      }
    }
    return {from.id(), edge->src_output()};
  }

  // That a loop's Merge or Exit is of; NULL for none.
  const ControlFlow::Variable* VariableOf(const Node& node) const {
    const int loop = flow_.loop(node);
    if (loop == ControlFlow::kNoLoop) return nullptr;
    for (const ControlFlow::Variable& variable : flow_.loops()[loop].variables) {
      if (variable.merge == &node) return &variable;
      for (const Node* exit : variable.exits) {
        if (exit == &node) return &variable;
      }
    }
    return nullptr;
  }

  Value Input(const Node& node, int input) const {
    const auto value = values_.find(Source(node, input));
    return value == values_.end() ? Value() : value->second;
  }

  Program& program_;
  const ControlFlow& flow_;
  const Options& options_;
  VariableReads* const reads_;
  Layout* const l_;
  std::map<const Node*, size_t> ranks_;
  std::vector<std::vector<const Node*>> children_;  // by loop, first those in none
  std::vector<const Node*> loop_units_;             // by loop, a node that stands for it
  std::map<std::pair<int, int>, Value> values_;     // by node and output
  std::map<std::pair<int, int>, VariableReads::Variable> variables_;
  std::map<std::string, int> ranks_of_variables_;  // by their keys, -1 where it is not known
  std::map<int, int> ranks_of_reads_;              // by their numbers
  std::set<std::pair<int, int>> unresolved_;       // handles
  std::set<const Node*> not_needed_;
  std::map<const Node*, Value> resolved_gathers_;  // with their variable
  std::set<const Node*> locked_gathers_;
  // Those that Lookups do, with the table, which is known before a run.
  std::map<const Node*, Value> gathers_;
  std::map<const Node*, int> concatenations_;    // with their axis
  std::map<const Node*, const Node*> absorbed_;  // gathers, with their concatenation
  std::set<int> branched_;                       // first literals
  std::map<int, int> own_numbers_;               // of loops, in the layout
  std::vector<int> owners_;                      // steps of the loops that are being laid out
  std::vector<int> owner_;                       // by step, that of the loop that it is in
  Value first_axis_;
};

absl::Status Layout::Make(Program& program, const Options& options, VariableReads* reads) {
  return Builder(program, options, reads, this).Build();
}

}  // namespace session_group
