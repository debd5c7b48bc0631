// The memory of one run of a program.
#ifndef SESSION_GROUP_FRAME_H_
#define SESSION_GROUP_FRAME_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"

namespace session_group {

// Made once and reused. Only one run uses it at a time.
struct Frame {
  explicit Frame(tensorflow::CancellationManager* closing) : cancellation(closing) {}

  std::vector<tensorflow::Tensor> feeds;
  std::vector<tensorflow::Tensor> variables;
  uint64_t variables_as_of = 0;
  std::vector<tensorflow::Tensor> slots;
  // Second references to slots with several users, which keep kernels from writing to them in
  // place.
  std::vector<tensorflow::Tensor> guards;
  // The inputs of all steps: pointers to the tensors of this frame and to constants.
  std::vector<tensorflow::TensorValue> inputs;
  std::vector<uint8_t> literals;  // 1 if the literal holds
  std::optional<absl::Time> deadline;
  int until_look = 0;     // steps until the next look at the clock
  int64_t last_tick = 0;  // of the coarse clock
  tensorflow::CancellationManager cancellation;
  tensorflow::OpKernelContext::Params params;
};

}  // namespace session_group

#endif  // SESSION_GROUP_FRAME_H_
