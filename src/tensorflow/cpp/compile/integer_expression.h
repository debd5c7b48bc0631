// Arithmetic on each element of a tensor of integers.
#ifndef SESSION_GROUP_INTEGER_EXPRESSION_H_
#define SESSION_GROUP_INTEGER_EXPRESSION_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/core/graph/graph.h"

namespace session_group {

// What small operations make of an index, one after the other, as the partition and the row of an
// embedding are made of an id. In a graph, each of them is a kernel with a tensor of its own.
//
// Values are in registers: register 0 is the element, and each operation writes the next register.
class IntegerExpression {
 public:
  // How many elements Evaluate() takes at once.
  static constexpr int kBlock = 64;

  // Adds what a node's input is computed from, down to one tensor that is not arithmetic: the same
  // for all inputs that are added. Gives the register, or nothing if something else than arithmetic
  // with constants is in between, or more of it than kMostOperations.
  std::optional<int> Add(const tensorflow::Node& node, int input);
  static constexpr int kMostOperations = 32;

  // Whether it can do the work of a node.
  static bool CanDo(const tensorflow::Node& node) { return KindOf(node.type_string()).has_value(); }

  // Whether a register has a value for each element, not one for all.
  bool IsOfElement(int number) const { return is_of_element_[number]; }
  // The tensor that the expression is of; NULL if it is of constants alone.
  const tensorflow::Edge* element() const { return element_; }

  // As numbers that an attribute of a node can have.
  std::vector<int64_t> Save() const;
  static IntegerExpression Load(const std::vector<int64_t>& saved);

  // Registers of a block of elements.
  using Block = std::vector<int64_t>;
  // Room for all registers.
  Block MakeBlock() const { return Block((operations_.size() + 1) * kBlock); }
  static int64_t* Register(Block* block, int number) { return block->data() + number * kBlock; }
  // Computes all registers from the first `n` elements of register 0.
  void Evaluate(int n, Block* block) const;

 private:
  enum Kind : int64_t {
    kConstant,
    kCopy,
    kAdd,
    kSubtract,
    kMultiply,
    kFloorDivide,  // by a constant above 0, like the next one
    kFloorModulo,
    kMaximum,
    kMinimum,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
    kSelect,
  };
  struct Operation {
    int64_t kind;
    int64_t is_32_bit;  // whether the result wraps around
    int64_t a;          // a register; of kConstant, the value
    int64_t b;
    int64_t c;
  };

  static std::optional<Kind> KindOf(const std::string& op);
  // `depth` is that of the recursion.
  std::optional<int> AddNode(const tensorflow::Edge& edge, int depth);
  std::optional<int> AddElement(const tensorflow::Edge& edge);
  int Push(Operation operation, bool is_of_element);
  bool IsPositiveConstant(int number) const;

  const tensorflow::Edge* element_ = nullptr;
  std::map<std::pair<const tensorflow::Node*, int>, int> registers_;
  std::vector<Operation> operations_;
  std::vector<bool> is_of_element_ = {true};  // by register
};

// The value of a constant scalar; nothing for any other node, type or shape.
std::optional<int64_t> ConstantInteger(const tensorflow::Node& node);

}  // namespace session_group

#endif  // SESSION_GROUP_INTEGER_EXPRESSION_H_
