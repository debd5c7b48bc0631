// Runs a program on the calling thread, step by step in a fixed order.
#ifndef SESSION_GROUP_SERIAL_EXECUTOR_H_
#define SESSION_GROUP_SERIAL_EXECUTOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "compile/program.h"
#include "execute/frame_pool.h"
#include "execute/layout.h"
#include "execute/resolved_reads.h"
#include "tensorflow/core/common_runtime/process_function_library_runtime.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace session_group {

// A program that is ready to run on one session. Thread-safe.
//
// TensorFlow's own executors find out at run time which nodes are ready, count pending inputs, and
// copy each tensor to each of its users. Here, the inputs of a node are pointers into a frame,
// which is laid out once and reused by later requests.
class SerialExecutor final : private Writes::Reader {
 public:
  struct Env {
    tensorflow::Device* device;
    const tensorflow::DeviceMgr* device_mgr;
    const tensorflow::SessionOptions* options;
    Writes* writes;
    FrameBudget* frames;
    uint32_t stripes;
    // Cancelled when the session is closed, which cancels every run. Outlives the executor.
    tensorflow::CancellationManager* closing;
    // Whether to read variables and tables by ResolvedReads, except for `unresolved`, which has
    // keys of ResolvedReads.
    bool resolve_reads;
    std::set<std::string> unresolved;
    // Whether to gather from known tables by Lookups.
    bool fuse_lookups;
    // Whether to measure which kernel is faster, or to use the kernels of a stock session.
    bool choose_kernels;
  };

  // The program and what `env` points to must outlive the executor.
  static absl::Status Make(Program* program, const Env& env,
                           std::unique_ptr<SerialExecutor>* executor);
  ~SerialExecutor() override;

  struct Outcome {
    // Nothing was run, because ResolvedReads can't read something now. Another executor must run
    // the request.
    bool is_unresolved = false;
    // Kernels ran instead of a lookup.
    bool was_unfused = false;
  };

  // Of the thread that runs: its stripe, and the time at which a run stops between two steps.
  struct Caller {
    uint32_t stripe;
    std::optional<absl::Time> deadline;
  };

  // Returns a tensor for each fetch. `feeds` must not change during the run.
  absl::Status Run(absl::Span<const tensorflow::Tensor* const> feeds, const Caller& caller,
                   absl::Span<tensorflow::Tensor> fetches, Outcome* outcome);

  // Whether a step may wait for something, so that only another thread could end the wait.
  bool may_wait() const { return layout_.may_wait; }
  const Layout& layout() const { return layout_; }
  size_t num_variables() const { return reads_.num_variables(); }
  size_t num_tables() const { return reads_.num_tables(); }
  // The keys of what could not be read.
  std::set<std::string> Unresolved() { return reads_.Unresolved(); }

 private:
  using Step = Layout::Step;
  using Value = Layout::Value;

  SerialExecutor(const Program* program, const Env& env);
  void Written() override;
  // About the memory that a frame has between two runs.
  int64_t FrameBytes() const;
  std::unique_ptr<Frame> MakeFrame();
  void GiveBack(FramePool::Hold* hold);
  absl::Status RunAll(Frame* frame, std::optional<absl::Time> deadline, Outcome* outcome);
  absl::Status RunSteps(int begin, int end, Frame* frame, Outcome* outcome);
  absl::Status RunStep(const Step& step, Frame* frame, Outcome* outcome);
  absl::Status RunChosen(const Step& step, Frame* frame);
  absl::Status Measure(const Step& step, int size, Frame* frame);
  absl::Status RunKernel(const Step& step, tensorflow::OpKernel* kernel, Frame* frame);
  absl::Status RunTable(const Step& step, Frame* frame);
  void SetKernel(const Step& step, tensorflow::OpKernel* kernel, Frame* frame) const;
  static absl::Status TakeOutputs(const Step& step, const tensorflow::OpKernel& kernel,
                                  tensorflow::OpKernelContext* context, Frame* frame);
  absl::Status RunLookups(const Step& step, Frame* frame, Outcome* outcome);
  absl::Status RunBranch(const Step& step, Frame* frame);
  absl::Status RunMerge(const Step& step, Frame* frame);
  absl::Status RunLoop(const Step& step, Frame* frame, Outcome* outcome);
  void Advance(const Step& step, Frame* frame);
  bool Holds(int condition, const Frame& frame) const;
  absl::Status CheckTime(const Step& step, Frame* frame) const;
  void Guard(const Step& step, Frame* frame) const;
  void Unguard(const Step& step, Frame* frame) const;
  void Forget(const Step& step, Frame* frame) const;
  absl::Status CheckFeeds(absl::Span<const tensorflow::Tensor* const> feeds) const;
  absl::Status CheckFetches(const Frame& frame) const;
  tensorflow::Tensor* Find(Value value, Frame* frame);

  const Program* const program_;
  const Env env_;
  std::unique_ptr<tensorflow::ProcessFunctionLibraryRuntime> functions_;
  tensorflow::FunctionLibraryRuntime* library_ = nullptr;
  tensorflow::Allocator* const host_;
  ResolvedReads reads_;
  Layout layout_;
  FramePool frames_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_SERIAL_EXECUTOR_H_
