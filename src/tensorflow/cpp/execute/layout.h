// A program laid out for one session: its kernels, and which tensors each of them reads and writes.
#ifndef SESSION_GROUP_LAYOUT_H_
#define SESSION_GROUP_LAYOUT_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "compile/kernel_choice.h"
#include "compile/program.h"
#include "execute/lookups.h"
#include "execute/variable_reads.h"
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Steps are in the order in which they run; those of a loop follow the step of the loop itself.
struct Layout {
  // Where a tensor is during a run.
  struct Value {
    enum Kind { kNone, kFeed, kConstant, kVariable, kSlot } kind = kNone;
    int index = 0;
  };

  // A step that runs in any case has this condition.
  static constexpr int kAlways = -1;

  struct Step {
    enum Kind {
      kKernel,
      kLookups,
      kBranch,   // finds out which side of a condition is run
      kMerge,    // takes the value of the side that was run
      kLoop,     // runs the steps that follow
      kTest,     // of a loop: whether there is one more turn
      kAdvance,  // of a loop: hands its variables on to the next turn
    } kind = kKernel;
    int condition = kAlways;                     // in `conditions`
    tensorflow::OpKernel* kernel = nullptr;      // of a kernel
    tensorflow::AsyncOpKernel* async = nullptr;  // the same, or NULL
    tensorflow::OpKernel* other = nullptr;       // that computes the same, or NULL
    KernelChoice* choice = nullptr;              // between the two
    int number = 0;       // in `lookups`, `merges` or `loops`; of a branch, its first literal
    int next = 0;         // the step after it, and after the steps of a loop
    int first_input = 0;  // in `inputs`
    int num_inputs = 0;
    int first_output = 0;
    int num_outputs = 0;
    // Slots that this step makes and that have several users: a second reference keeps all of these
    // but the last from writing their outputs in place.
    std::vector<int> guard;
    // Slots whose last user this step is, and may write in place.
    std::vector<int> unguard;
    // Slots, and second references, that nobody needs after this step.
    std::vector<int> dead;
    std::vector<int> dead_guards;
  };

  // Steps that do what a step of lookups does, where that can't.
  struct Fused {
    Lookups lookups;
    std::vector<Step> kernels;
    std::vector<int> temporaries;  // slots
  };

  struct Merge {
    std::vector<int> conditions;  // of its inputs, in `conditions`
    int literal = -1;             // which says that it got a value, if that is one
    bool gives_side = false;      // somebody wants to know whose value it is
  };

  // What a loop hands from turn to turn.
  struct Variable {
    int slot = 0;
    int next = 0;           // a slot, for as long as all variables take their next values
    bool is_moved = false;  // nobody else needs its first value
    bool is_guarded = false;
    std::vector<int> exits;  // slots
  };

  struct Loop {
    int test = 0;  // steps
    int advance = 0;
    std::vector<Variable> variables;  // by the loop step's inputs
    int first_literal = 0;
    int num_literals = 0;
  };

  struct Options {
    tensorflow::FunctionLibraryRuntime* library;
    // Whether to read variables by VariableReads, and which of them not.
    bool resolve_reads = false;
    const std::set<std::string>* unresolved = nullptr;  // VariableReads::Key()
    // Whether to gather from known tables by Lookups.
    bool fuse_lookups = false;
    // Whether to measure which kernel is the fastest.
    bool choose_kernels = false;
  };

  // Adds the variables that it reads to `reads`. The program must outlive the layout.
  absl::Status Make(Program& program, const Options& options, VariableReads* reads);

  std::vector<std::shared_ptr<tensorflow::OpKernel>> kernels;
  std::vector<tensorflow::Tensor> constants;
  std::vector<tensorflow::Tensor> constant_guards;  // keep kernels from writing into constants
  std::vector<tensorflow::DataType> feed_types;
  std::vector<Step> steps;
  std::vector<Fused> lookups;
  std::vector<Merge> merges;
  std::vector<Loop> loops;
  std::vector<std::vector<int>> conditions;  // literals, all of which must hold
  int num_literals = 0;
  std::vector<Value> inputs;  // of all steps, one after the other
  std::vector<tensorflow::AllocatorAttributes> input_attrs;
  std::vector<tensorflow::AllocatorAttributes> output_attrs;  // by slot
  std::vector<Value> fetches;
  std::vector<int> fetch_conditions;
  int num_gathers = 0;  // in lookups
  // Whether a step's end comes by a callback, so that only another thread could end a wait for it.
  bool may_wait = false;
  // Whether kernels need what is unique to a run.
  bool needs_step = false;
};

}  // namespace session_group

#endif  // SESSION_GROUP_LAYOUT_H_
