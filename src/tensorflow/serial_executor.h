// Runs a program on the calling thread, node after node in an order that is fixed beforehand.
#ifndef SESSION_GROUP_SERIAL_EXECUTOR_H_
#define SESSION_GROUP_SERIAL_EXECUTOR_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "lookups.h"
#include "program.h"
#include "tensorflow/core/common_runtime/process_function_library_runtime.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "variable_reads.h"

namespace session_group {

// A program made ready for one session. Thread-safe.
//
// TensorFlow's own executors find out at run time what is ready, count what is pending, and copy
// each tensor to each of its consumers. Here a node's inputs are pointers into a frame that is laid
// out once and used again by later requests.
class SerialExecutor final : private Writes::Reader {
 public:
  struct Env {
    tensorflow::Device* device;
    const tensorflow::DeviceMgr* device_mgr;
    const tensorflow::SessionOptions* options;
    Writes* writes;
    // Cancelled when the session is closed, and with it every run. Outlives the executor.
    tensorflow::CancellationManager* closing;
    // Whether to read variables by VariableReads.
    bool resolve_reads;
    // Whether to gather from known tables by Lookups.
    bool fuse_lookups;
  };

  // The program and what `env` points to must outlive the executor.
  static absl::Status Make(const Program* program, const Env& env,
                           std::unique_ptr<SerialExecutor>* executor);
  ~SerialExecutor() override;

  enum class Outcome {
    kRan,
    // It takes an executor that does without what `env` allows: a variable can't be read in the
    // resolved way, or a lookup has an index that is out of range.
    kNotThisTime,
    // As above, for a reason that is likely to stay.
    kNotPossible,
  };

  // Gives a tensor for each fetch. `feeds` must stay as they are meanwhile. Where `deadline` passes
  // between two nodes, the rest is not run.
  absl::Status Run(absl::Span<const tensorflow::Tensor* const> feeds,
                   std::optional<absl::Time> deadline, absl::Span<tensorflow::Tensor> fetches,
                   Outcome* outcome);

  // Whether a node may wait for something, so that only another thread could end it.
  bool may_wait() const { return may_wait_; }

 private:
  // Where a tensor is during a run.
  struct Value {
    enum Kind { kNone, kFeed, kConstant, kVariable, kSlot } kind = kNone;
    int index = 0;
  };

  struct Step {
    tensorflow::OpKernel* kernel = nullptr;
    tensorflow::AsyncOpKernel* async = nullptr;  // the same, or NULL
    int lookups = -1;                            // in lookups_, in place of a kernel
    int first_input = 0;                         // in inputs_
    int num_inputs = 0;
    int first_output = 0;  // slots are numbered in the order of their steps
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

  struct Frame;

  SerialExecutor(const Program* program, const Env& env);
  absl::Status MakeKernel(const std::shared_ptr<const tensorflow::NodeProperties>& properties,
                          tensorflow::OpKernel** kernel);
  void Written() override;
  void DropFrames();
  std::unique_ptr<Frame> TakeFrame();
  void GiveBack(std::unique_ptr<Frame> frame);
  absl::Status RunSteps(Frame* frame, std::optional<absl::Time> deadline, Outcome* outcome);
  void Guard(const Step& step, Frame* frame) const;
  void Forget(const Step& step, Frame* frame) const;
  absl::Status CheckFeeds(absl::Span<const tensorflow::Tensor* const> feeds) const;
  tensorflow::Tensor* Find(Value value, Frame* frame);

  class Builder;
  friend class Builder;

  const Program* const program_;
  const Env env_;
  std::unique_ptr<tensorflow::ProcessFunctionLibraryRuntime> functions_;
  tensorflow::FunctionLibraryRuntime* library_ = nullptr;
  tensorflow::Allocator* const host_;
  VariableReads reads_;

  std::vector<std::unique_ptr<tensorflow::OpKernel>> kernels_;
  std::vector<tensorflow::Tensor> constants_;
  std::vector<tensorflow::Tensor> constant_guards_;  // keep kernels from writing into constants
  std::vector<tensorflow::DataType> feed_types_;
  std::vector<Step> steps_;
  std::vector<Lookups> lookups_;
  std::vector<Value> inputs_;  // of all steps, one after the other
  std::vector<tensorflow::AllocatorAttributes> input_attrs_;
  std::vector<tensorflow::AllocatorAttributes> output_attrs_;  // by slot
  std::vector<Value> fetches_;
  bool may_wait_ = false;

  // Frames that no run uses. More runs at a time than this make frames of their own.
  static constexpr int kSpareFrames = 4;
  std::array<std::atomic<Frame*>, kSpareFrames> spare_{};
};

}  // namespace session_group

#endif  // SESSION_GROUP_SERIAL_EXECUTOR_H_
