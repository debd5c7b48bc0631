// Functions of others that Rust calls and that may throw: policies, and the log.
#include "abi/handles.h"
#include "abi/shim.h"
#include "tensorflow/core/platform/logging.h"

using session_group::Caught;

TF_Status* sg_choose(int32_t (*choose)(void* context, const void* load), void* context,
                     const void* load, int32_t* session) {
  return session_group::NewStatus(Caught([&] {
    *session = choose(context, load);
    return absl::OkStatus();
  }));
}

void sg_log_info(sg_str line) {
  try {
    LOG(INFO) << absl::string_view(line.data, line.size);
  } catch (...) {
    // A request must not fail because a line can't be logged.
  }
}
