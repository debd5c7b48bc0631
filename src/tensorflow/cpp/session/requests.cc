#include "session/requests.h"

#include "absl/container/inlined_vector.h"

using tensorflow::Tensor;

TF_Status* sg_tensors_run_program(sg_tensors* call, sg_instance* instance, const sg_run* run,
                                  sg_run_notes* notes) {
  return session_group::NewStatus(session_group::Caught([&]() -> absl::Status {
    absl::InlinedVector<const Tensor*, 16> feeds(call->num_feeds());
    for (size_t i = 0; i < feeds.size(); ++i) feeds[i] = call->feed(i);
    if (call->fetched != nullptr) call->fetched->clear();
    if (call->num_fetches == 0) return instance->Run(*run, feeds, {}, notes);
    call->fetched->resize(call->num_fetches);
    absl::Status ran = instance->Run(*run, feeds, absl::MakeSpan(*call->fetched), notes);
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
