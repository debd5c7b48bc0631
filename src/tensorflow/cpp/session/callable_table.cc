#include "session/callable_table.h"

#include "absl/strings/str_cat.h"
#include "tensorflow/core/lib/strings/proto_serialization.h"

namespace session_group {

absl::Status CallableTable::Make(const tensorflow::CallableOptions& options,
                                 absl::FunctionRef<absl::Status(Callable*)> prepare,
                                 Handle* handle) {
  std::string serialised;
  if (!tensorflow::SerializeToStringDeterministic(options, &serialised)) {
    return absl::InvalidArgumentError(
        "the CallableOptions can't be serialised: use only UTF-8 in names");
  }
  std::lock_guard<std::mutex> lock(mu_);
  for (size_t i = 0; i < callables_.size(); ++i) {
    if (callables_[i]->released && callables_[i]->serialised == serialised) {
      callables_[i]->released = false;
      by_handle_[i].store(callables_[i].get(), std::memory_order_release);
      *handle = i;
      return absl::OkStatus();
    }
  }
  if (callables_.size() == kMostCallables) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the session has made ", kMostCallables,
                     " different callables, which is the limit: reuse callables with the same "
                     "feeds, fetches and targets"));
  }
  auto callable = std::make_unique<Callable>(options, std::move(serialised));
  absl::Status made = prepare(callable.get());
  if (!made.ok()) return made;
  by_handle_[callables_.size()].store(callable.get(), std::memory_order_release);
  *handle = callables_.size();
  callables_.push_back(std::move(callable));
  return absl::OkStatus();
}

absl::Status CallableTable::Find(Handle handle, Callable** callable) const {
  if (handle >= 0 && handle < static_cast<Handle>(kMostCallables)) {
    *callable = by_handle_[handle].load(std::memory_order_acquire);
    if (*callable != nullptr) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("there is no callable with the handle ", handle,
                   ", or it was released: make it by MakeCallable() of this session"));
}

absl::Status CallableTable::Release(Handle handle) {
  Callable* callable;
  std::lock_guard<std::mutex> lock(mu_);
  absl::Status found = Find(handle, &callable);
  if (!found.ok()) return found;
  by_handle_[handle].store(nullptr, std::memory_order_release);
  callable->released = true;
  return absl::OkStatus();
}

}  // namespace session_group
