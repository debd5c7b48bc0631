// Calls functions of Rust: converts names for them, and statuses from them.
#ifndef SESSION_GROUP_RUST_CALLS_H_
#define SESSION_GROUP_RUST_CALLS_H_

#include <string>

#include "abi/shim.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "tensorflow/c/tf_status_helper.h"

namespace session_group {

// Converts and deletes a status; NULL is OK.
inline absl::Status Take(TF_Status* status) {
  if (status == nullptr) return absl::OkStatus();
  absl::Status taken = tsl::StatusFromTF_Status(status);
  TF_DeleteStatus(status);
  return taken;
}

// Calls `body` with a TF_Status, and returns what it reports.
template <typename Body>
absl::Status Reported(Body body) {
  TF_Status* status = TF_NewStatus();
  body(status);
  return Take(status);
}

inline sg_str Str(const std::string& string) { return {string.data(), string.size()}; }

using Strs = absl::InlinedVector<sg_str, 32>;

template <typename Strings>
Strs ToStrs(const Strings& strings) {
  Strs strs;
  strs.reserve(strings.size());
  for (const std::string& string : strings) strs.push_back(Str(string));
  return strs;
}

inline sg_names Names(const Strs& feeds, const Strs& fetches, const Strs& targets) {
  return {feeds.data(),   feeds.size(),   fetches.data(),
          fetches.size(), targets.data(), targets.size()};
}

}  // namespace session_group

#endif  // SESSION_GROUP_RUST_CALLS_H_
