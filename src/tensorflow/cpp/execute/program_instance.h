// A program and the executors with which one session runs it.
#ifndef SESSION_GROUP_PROGRAM_INSTANCE_H_
#define SESSION_GROUP_PROGRAM_INSTANCE_H_

#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "abi/shim.h"
#include "absl/types/span.h"
#include "compile/program.h"
#include "execute/serial_executor.h"
#include "tensorflow/core/framework/tensor.h"

struct sg_program {
  // Constants that no other program has are freed with it.
  ~sg_program() {
    program.reset();
    constants->Sweep();
  }

  session_group::ConstantStore* constants;
  std::unique_ptr<session_group::Program> program;
};

// Thread-safe.
struct sg_instance {
  using SerialExecutor = session_group::SerialExecutor;

  // The program and what `env` points to must outlive the instance.
  static absl::Status Make(session_group::Program* program, SerialExecutor::Env env,
                           std::unique_ptr<sg_instance>* instance);

  // Feeds and fetches are in the order of the request.
  absl::Status Run(const sg_run& run, absl::Span<const tensorflow::Tensor* const> feeds,
                   absl::Span<tensorflow::Tensor> fetches, sg_run_notes* notes);

  const session_group::Program& program() const { return *program_; }
  const SerialExecutor& usual() const { return *usual_; }

 private:
  absl::Status RunUsual(absl::Span<const tensorflow::Tensor* const> feeds,
                        const SerialExecutor::Caller& caller,
                        absl::Span<tensorflow::Tensor> fetches, sg_run_notes* notes);
  absl::Status RunUnresolved(absl::Span<const tensorflow::Tensor* const> feeds,
                             const SerialExecutor::Caller& caller,
                             absl::Span<tensorflow::Tensor> fetches, sg_run_notes* notes);
  absl::Status GetExecutor(bool resolves, const std::set<std::string>& unresolved,
                           std::shared_ptr<SerialExecutor>* executor);

  session_group::Program* program_ = nullptr;
  SerialExecutor::Env env_;
  // Reads all variables and tables by ResolvedReads, if that is on.
  std::unique_ptr<SerialExecutor> usual_;
  // Used when ResolvedReads can't read some of them: leaves out the last such set.
  std::mutex mu_;
  std::set<std::string> unresolved_;
  std::shared_ptr<SerialExecutor> other_;
  // Reads all with TensorFlow's kernels.
  std::shared_ptr<SerialExecutor> plain_;
};

#endif  // SESSION_GROUP_PROGRAM_INSTANCE_H_
