#include "compile/integer_expression.h"

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {
namespace {

using tensorflow::DataType;
using tensorflow::Edge;
using tensorflow::Node;

constexpr int kNumbers = 5;  // of an operation that is saved

bool IsInteger(DataType type) {
  return type == tensorflow::DT_INT32 || type == tensorflow::DT_INT64;
}

bool FitsInto32Bits(int64_t a, int64_t b) {
  return ((static_cast<uint64_t>(a) | static_cast<uint64_t>(b)) >> 32) == 0;
}

// Of numbers that are not too large, the CPU divides in a quarter of the time.
int64_t FloorDivide(int64_t a, int64_t b) {
  if (FitsInto32Bits(a, b)) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b - (a % b < 0 ? 1 : 0);
}

int64_t FloorModulo(int64_t a, int64_t b) {
  if (FitsInto32Bits(a, b)) return static_cast<uint32_t>(a) % static_cast<uint32_t>(b);
  const int64_t rest = a % b;
  return rest < 0 ? rest + b : rest;
}

// Wraps around, as TensorFlow's kernels do.
template <typename F>
int64_t Wrapped(int64_t a, int64_t b, F f) {
  return static_cast<int64_t>(f(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
}

}  // namespace

std::optional<int64_t> ConstantInteger(const Node& node) {
  const tensorflow::TensorProto* proto;
  tensorflow::Tensor value;
  if (!node.IsConstant() || !tensorflow::GetNodeAttr(node.attrs(), "value", &proto).ok() ||
      !IsInteger(proto->dtype()) || proto->tensor_shape().dim_size() > 0 ||
      !value.FromProto(*proto) || value.NumElements() != 1) {
    return std::nullopt;
  }
  return value.dtype() == tensorflow::DT_INT32 ? value.flat<int32_t>()(0)
                                               : value.flat<int64_t>()(0);
}

std::optional<IntegerExpression::Kind> IntegerExpression::KindOf(const std::string& op) {
  static const auto* const kinds =
      new std::unordered_map<std::string, Kind>{{"Cast", kCopy},
                                                {"Add", kAdd},
                                                {"AddV2", kAdd},
                                                {"Sub", kSubtract},
                                                {"Mul", kMultiply},
                                                {"FloorDiv", kFloorDivide},
                                                {"FloorMod", kFloorModulo},
                                                {"Maximum", kMaximum},
                                                {"Minimum", kMinimum},
                                                {"Less", kLess},
                                                {"LessEqual", kLessEqual},
                                                {"Greater", kGreater},
                                                {"GreaterEqual", kGreaterEqual},
                                                {"Select", kSelect},
                                                {"SelectV2", kSelect}};
  const auto found = kinds->find(op);
  return found == kinds->end() ? std::nullopt : std::optional<Kind>(found->second);
}

std::optional<int> IntegerExpression::Add(const Node& node, int input) {
  const Edge* edge;
  return node.input_edge(input, &edge).ok() ? AddNode(*edge, 0) : std::nullopt;
}

std::optional<int> IntegerExpression::AddNode(const Edge& edge, int depth) {
  const Node& node = *edge.src();
  const auto known = registers_.find({&node, edge.src_output()});
  if (known != registers_.end()) return known->second;
  if (depth > kMostOperations || operations_.size() > kMostOperations) return std::nullopt;
  if (const std::optional<int64_t> constant = ConstantInteger(node)) {
    return registers_[{&node, 0}] = Push({kConstant, 0, *constant, 0, 0}, false);
  }
  const std::optional<Kind> kind = KindOf(node.type_string());
  if (!kind.has_value()) return AddElement(edge);
  // Conditions come from comparisons alone, so that numbers are all that has to be looked at.
  const int first = *kind == kSelect ? 1 : 0;
  for (int i = first; i < node.num_inputs(); ++i) {
    if (!IsInteger(node.input_type(i))) return std::nullopt;
  }
  if (*kind == kCopy && !IsInteger(node.output_type(0))) return std::nullopt;
  for (const Edge* in : node.in_edges()) {
    if (in->IsControlEdge() && !in->src()->IsSource()) return std::nullopt;
  }
  Operation operation = {*kind, node.output_type(0) == tensorflow::DT_INT32, 0, 0, 0};
  int64_t* const operands[] = {&operation.a, &operation.b, &operation.c};
  bool is_of_element = false;
  for (int i = 0; i < node.num_inputs(); ++i) {
    const Edge* in;
    if (!node.input_edge(i, &in).ok()) return std::nullopt;
    const std::optional<int> operand = AddNode(*in, depth + 1);
    if (!operand.has_value()) return std::nullopt;
    *operands[i] = *operand;
    is_of_element |= IsOfElement(*operand);
  }
  // Other than SelectV2, it takes no scalars for vectors.
  if (node.type_string() == "Select" && is_of_element &&
      !(IsOfElement(static_cast<int>(operation.b)) && IsOfElement(static_cast<int>(operation.c)))) {
    return std::nullopt;
  }
  const bool divides = *kind == kFloorDivide || *kind == kFloorModulo;
  if (divides && !IsPositiveConstant(static_cast<int>(operation.b))) return std::nullopt;
  return registers_[{&node, 0}] = Push(operation, is_of_element);
}

std::optional<int> IntegerExpression::AddElement(const Edge& edge) {
  if (!IsInteger(edge.src()->output_type(edge.src_output()))) return std::nullopt;
  if (element_ == nullptr) element_ = &edge;
  const bool is_same = element_->src() == edge.src() && element_->src_output() == edge.src_output();
  return is_same ? std::optional<int>(0) : std::nullopt;
}

int IntegerExpression::Push(Operation operation, bool is_of_element) {
  operations_.push_back(operation);
  is_of_element_.push_back(is_of_element);
  return static_cast<int>(operations_.size());
}

bool IntegerExpression::IsPositiveConstant(int number) const {
  if (number == 0) return false;
  const Operation& operation = operations_[number - 1];
  return operation.kind == kConstant && operation.a > 0;
}

std::vector<int64_t> IntegerExpression::Save() const {
  std::vector<int64_t> saved;
  for (const Operation& operation : operations_) {
    for (const int64_t number :
         {operation.kind, operation.is_32_bit, operation.a, operation.b, operation.c}) {
      saved.push_back(number);
    }
  }
  return saved;
}

IntegerExpression IntegerExpression::Load(const std::vector<int64_t>& saved) {
  IntegerExpression expression;
  for (size_t i = 0; i + kNumbers <= saved.size(); i += kNumbers) {
    expression.operations_.push_back(
        {saved[i], saved[i + 1], saved[i + 2], saved[i + 3], saved[i + 4]});
  }
  return expression;
}

void IntegerExpression::Evaluate(int n, Block* block) const {
  for (size_t i = 0; i < operations_.size(); ++i) {
    const Operation& operation = operations_[i];
    int64_t* const to = Register(block, static_cast<int>(i) + 1);
    if (operation.kind == kConstant) {
      std::fill(to, to + n, operation.a);
      continue;
    }
    const int64_t* const a = Register(block, static_cast<int>(operation.a));
    const int64_t* const b = Register(block, static_cast<int>(operation.b));
    const int64_t* const c = Register(block, static_cast<int>(operation.c));
    const auto each = [&](auto f) {
      for (int k = 0; k < n; ++k) to[k] = f(a[k], b[k]);
    };
    switch (operation.kind) {
      case kCopy:
        each([](int64_t a, int64_t) { return a; });
        break;
      case kAdd:
        each([](int64_t a, int64_t b) { return Wrapped(a, b, std::plus<>()); });
        break;
      case kSubtract:
        each([](int64_t a, int64_t b) { return Wrapped(a, b, std::minus<>()); });
        break;
      case kMultiply:
        each([](int64_t a, int64_t b) { return Wrapped(a, b, std::multiplies<>()); });
        break;
      case kFloorDivide:
        each(FloorDivide);
        break;
      case kFloorModulo:
        each(FloorModulo);
        break;
      case kMaximum:
        each([](int64_t a, int64_t b) { return std::max(a, b); });
        break;
      case kMinimum:
        each([](int64_t a, int64_t b) { return std::min(a, b); });
        break;
      case kLess:
        each([](int64_t a, int64_t b) { return int64_t{a < b}; });
        break;
      case kLessEqual:
        each([](int64_t a, int64_t b) { return int64_t{a <= b}; });
        break;
      case kGreater:
        each([](int64_t a, int64_t b) { return int64_t{a > b}; });
        break;
      case kGreaterEqual:
        each([](int64_t a, int64_t b) { return int64_t{a >= b}; });
        break;
      case kSelect:
        for (int k = 0; k < n; ++k) to[k] = a[k] != 0 ? b[k] : c[k];
        break;
    }
    if (operation.is_32_bit == 0) continue;
    for (int k = 0; k < n; ++k) to[k] = static_cast<int32_t>(to[k]);
  }
}

}  // namespace session_group
