// Turns exceptions into statuses.
#ifndef SESSION_GROUP_CAUGHT_H_
#define SESSION_GROUP_CAUGHT_H_

#include <exception>
#include <new>

#include "absl/status/status.h"

namespace session_group {

// Runs `body`, which returns an absl::Status. Turns any exception into a status, and sets `threw`,
// which may be NULL.
template <typename Body>
absl::Status Caught(Body body, bool* threw = nullptr) noexcept {
  absl::Status status;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& e) {
    status = absl::InternalError(e.what());
  } catch (...) {
    status = absl::InternalError("an exception of unknown type was thrown");
  }
  if (threw != nullptr) *threw = true;
  return status;
}

}  // namespace session_group

#endif  // SESSION_GROUP_CAUGHT_H_
