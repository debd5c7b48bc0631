// Registers the session target "session_group", and makes and recognises GroupSessions for Rust.
#include <atomic>

#include "abi/handles.h"
#include "abi/shim.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "session/group_session.h"
#include "session/rust_calls.h"
#include "tensorflow/core/common_runtime/session_factory.h"

namespace session_group {
namespace {

// "session_group", alone or before a colon.
bool IsTarget(absl::string_view target) {
  return absl::ConsumePrefix(&target, "session_group") && (target.empty() || target[0] == ':');
}

class Factory final : public tensorflow::SessionFactory {
 public:
  explicit Factory(const sg_group_functions* rust) : rust_(rust) {}

  bool AcceptsOptions(const tensorflow::SessionOptions& options) override {
    return IsTarget(options.target);
  }

  absl::Status NewSession(const tensorflow::SessionOptions& options,
                          tensorflow::Session** session) override {
    *session = nullptr;
    return Caught([&]() -> absl::Status {
      TF_SessionOptions own{options};
      own.options.target.clear();
      sg_group* group = nullptr;
      absl::Status made = Reported(
          [&](TF_Status* status) { group = rust_->make(Str(options.target), &own, status); });
      if (made.ok()) *session = new GroupSession(rust_, group, -1, /*owns_group=*/true);
      return made;
    });
  }

 private:
  const sg_group_functions* const rust_;
};

// Set once.
std::atomic<const sg_group_functions*> registered{nullptr};

}  // namespace
}  // namespace session_group

void sg_register_target(const sg_group_functions* functions, TF_Status* status) {
  session_group::Guard(status, [&] {
    const sg_group_functions* before = nullptr;
    if (!session_group::registered.compare_exchange_strong(before, functions)) {
      return absl::OkStatus();
    }
    // Another loaded copy of this library may have registered the target, and TensorFlow refuses a
    // target that two factories accept.
    tensorflow::SessionOptions options;
    options.target = "session_group";
    tensorflow::SessionFactory* factory;
    if (!tensorflow::SessionFactory::GetFactory(options, &factory).ok()) {
      // TensorFlow keeps the factory until the process ends.
      tensorflow::SessionFactory::Register("SESSION_GROUP", new session_group::Factory(functions));
    }
    return absl::OkStatus();
  });
}

void* sg_group_session_new(sg_group* group, int32_t session, TF_Status* status) {
  tensorflow::Session* made = nullptr;
  session_group::Guard(status, [&] {
    made = new session_group::GroupSession(session_group::registered.load(), group, session,
                                           /*owns_group=*/false);
    return absl::OkStatus();
  });
  return made;
}

sg_group* sg_group_of_session(void* session) {
  auto* group =
      dynamic_cast<session_group::GroupSession*>(static_cast<tensorflow::Session*>(session));
  // A group of another loaded copy of this library does not count, because that may be another
  // version.
  if (group == nullptr || group->rust() != session_group::registered.load()) return nullptr;
  return group->group();
}
