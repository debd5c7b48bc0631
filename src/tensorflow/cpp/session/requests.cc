#include "session/requests.h"

#include <optional>

#include "absl/container/inlined_vector.h"
#include "absl/time/clock.h"

using tensorflow::Tensor;

TF_Status* sg_tensors_run_program(sg_tensors* call, sg_instance* instance, const sg_order* order,
                                  int64_t timeout_ms, sg_run_notes* notes) {
  return session_group::NewStatus(session_group::Caught([&]() -> absl::Status {
    absl::InlinedVector<const Tensor*, 16> feeds(call->num_feeds());
    for (size_t i = 0; i < feeds.size(); ++i) feeds[i] = call->feed(i);
    std::optional<absl::Time> deadline;
    if (timeout_ms > 0) deadline = absl::Now() + absl::Milliseconds(timeout_ms);
    if (call->fetched != nullptr) call->fetched->clear();
    if (call->num_fetches == 0) return instance->Run(*order, feeds, deadline, {}, notes);
    call->fetched->resize(call->num_fetches);
    absl::Status ran =
        instance->Run(*order, feeds, deadline, absl::MakeSpan(*call->fetched), notes);
    if (!ran.ok()) call->fetched->clear();
    return ran;
  }));
}

TF_Status* sg_tensors_run_session(sg_tensors* call, sg_session* session,
                                  const sg_run_options* options) {
  return session_group::NewStatus(
      session_group::Caught([&] { return call->RunOn(session, options->proto); }));
}

void sg_tensors_clear_outputs(sg_tensors* call) {
  if (call->fetched != nullptr) call->fetched->clear();
  if (call->metadata != nullptr) call->metadata->Clear();
}
