// The layout of a program for one session: its kernels, and the tensors that each of them reads and
// writes.
#ifndef SESSION_GROUP_LAYOUT_H_
#define SESSION_GROUP_LAYOUT_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "compile/kernel_choice.h"
#include "execute/lookups.h"
#include "execute/small_operation.h"
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Steps are in the order in which they run. The steps of a loop follow the step of the loop itself.
struct Layout {
  // The place of a tensor during a run.
  struct Value {
    enum Kind { kNone, kFeed, kConstant, kVariable, kSlot } kind = kNone;
    int index = 0;
  };

  // The condition of a step that always runs.
  static constexpr int kAlways = -1;

  struct Step {
    enum Kind {
      kKernel,
      kLookups,
      kFind,     // looks keys up in a table
      kSize,     // of a table
      kBranch,   // finds out which side of a branch runs
      kMerge,    // takes the value of the side that ran
      kLoop,     // runs the steps that follow
      kTest,     // of a loop: whether there is another iteration
      kAdvance,  // of a loop: gives its variables their next values
    } kind = kKernel;
    int condition = kAlways;                     // an index of `conditions`
    tensorflow::OpKernel* kernel = nullptr;      // of kKernel, kFind and kSize
    tensorflow::AsyncOpKernel* async = nullptr;  // the same kernel, if it is asynchronous
    tensorflow::OpKernel* other = nullptr;       // computes the same, or NULL
    KernelChoice* choice = nullptr;              // between `kernel` and `other`
    const SmallOperation* small = nullptr;       // does the same as `kernel` where it can, or NULL
    // An index of `lookups`, `merges`, `loops` or the tables; of kBranch, the first literal.
    int number = 0;
    int next = 0;         // the next step; of kLoop, the one after the loop
    int first_input = 0;  // an index of `inputs`
    int num_inputs = 0;
    int first_output = 0;
    int num_outputs = 0;
    // Slots that this step makes and that have several users. A second reference keeps all users
    // but the last from writing their outputs in place.
    std::vector<int> guard;
    // Slots whose last user is this step, which may write in place.
    std::vector<int> unguard;
    // Slots and second references that no later step needs.
    std::vector<int> dead;
    std::vector<int> dead_guards;
  };

  // A step of lookups, and the kernels that run instead if Lookups can't do it.
  struct Fused {
    Lookups lookups;
    std::vector<Step> kernels;
    std::vector<int> temporaries;  // slots
  };

  struct Merge {
    std::vector<int> conditions;  // by input, an index of `conditions`
    int literal = -1;             // says whether it got a value; -1 if there is no such literal
    bool gives_side = false;      // whether its output value_index has users
  };

  // A value that each iteration of a loop hands to the next.
  struct Variable {
    int slot = 0;
    int next = 0;           // a slot, used only while the variables take their next values
    bool is_moved = false;  // whether only the loop needs the first value
    bool is_guarded = false;
    std::vector<int> exits;  // slots
  };

  struct Loop {
    int test = 0;  // a step, like `advance`
    int advance = 0;
    std::vector<Variable> variables;  // by input of the loop's step
    int first_literal = 0;
    int num_literals = 0;
  };

  struct Options {
    tensorflow::FunctionLibraryRuntime* library;
    // Whether to read variables and tables by ResolvedReads, and which to leave out.
    bool resolve_reads = false;
    const std::set<std::string>* unresolved = nullptr;  // keys of ResolvedReads
    // Whether to gather from known tables by Lookups.
    bool fuse_lookups = false;
    // Whether to measure which of two kernels is faster.
    bool choose_kernels = false;
  };

  std::vector<std::shared_ptr<tensorflow::OpKernel>> kernels;
  std::vector<std::unique_ptr<SmallOperation>> small_operations;
  std::vector<tensorflow::Tensor> constants;
  std::vector<tensorflow::Tensor> constant_guards;  // keep kernels from writing into constants
  std::vector<tensorflow::DataType> feed_types;
  std::vector<Step> steps;
  std::vector<Fused> lookups;
  std::vector<Merge> merges;
  std::vector<Loop> loops;
  std::vector<std::vector<int>> conditions;  // literals that must all hold
  int num_literals = 0;
  std::vector<Value> inputs;  // of all steps, in order
  std::vector<tensorflow::AllocatorAttributes> input_attrs;
  std::vector<tensorflow::AllocatorAttributes> output_attrs;  // by slot
  std::vector<Value> fetches;
  std::vector<int> fetch_conditions;
  int num_gathers = 0;  // in lookups
  // Whether a step ends by a callback, so that the calling thread may wait and only another thread
  // could end the wait.
  bool may_wait = false;
  // Whether kernels need a step id, a rendezvous and a step container.
  bool needs_step = false;
};

}  // namespace session_group

#endif  // SESSION_GROUP_LAYOUT_H_
