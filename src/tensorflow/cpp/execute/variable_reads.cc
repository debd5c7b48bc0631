#include "execute/variable_reads.h"

#include <algorithm>
#include <utility>

#include "graph/private_buffer.h"

namespace session_group {
namespace {

using tensorflow::Tensor;

// After this many requests, a variable that could not be read is tried again, even without a write.
constexpr uint32_t kRetryAfter = 64;
// How long a variable stays in the mode of sparse updates after this was ended twice: first this
// long, then twice as long each time.
constexpr std::chrono::milliseconds kFirstPause{100};
constexpr int kMostDoublings = 10;

}  // namespace

void Writes::Begin() {
  std::lock_guard<std::mutex> lock(active_mu_);
  ++active_;
}

void Writes::End() {
  {
    std::lock_guard<std::mutex> lock(active_mu_);
    --active_;
  }
  Add();
}

void Writes::Add() {
  count_.fetch_add(1, std::memory_order_release);
  std::lock_guard<std::mutex> lock(mu_);
  for (Reader* reader : readers_) reader->Written();
}

void Writes::Untrack() {
  untracked_.store(true, std::memory_order_relaxed);
  Add();
}

void Writes::AddReader(Reader* reader) {
  std::lock_guard<std::mutex> lock(mu_);
  readers_.insert(reader);
}

void Writes::RemoveReader(Reader* reader) {
  std::lock_guard<std::mutex> lock(mu_);
  readers_.erase(reader);
}

bool Writes::EndCopyOnRead(tensorflow::Var* variable) {
  std::lock_guard<std::mutex> lock(active_mu_);
  if (active_ > 0 || are_untracked()) return false;
  const auto now = std::chrono::steady_clock::now();
  SparselyWritten& written = sparsely_written_[variable];
  if (written.times >= 2) {
    const int doublings = std::min(written.times - 2, kMostDoublings);
    if (now - written.last < kFirstPause * (1 << doublings)) return false;
  }
  ++written.times;
  written.last = now;
  variable->copy_on_read_mode.store(false);
  return true;
}

size_t VariableReads::Add(Variable variable) {
  for (size_t i = 0; i < variables_.size(); ++i) {
    if (variables_[i].container == variable.container && variables_[i].name == variable.name &&
        variables_[i].dtype == variable.dtype) {
      return i;
    }
  }
  variables_.push_back(std::move(variable));
  return variables_.size() - 1;
}

bool VariableReads::HasFailed() {
  const uint64_t failed = failed_as_of_.load(std::memory_order_relaxed);
  if (failed == 0 || !IsUpToDate(failed)) return false;
  return since_failure_.fetch_add(1, std::memory_order_relaxed) % kRetryAfter != kRetryAfter - 1;
}

std::set<std::string> VariableReads::Unresolved() {
  std::lock_guard<std::mutex> lock(mu_);
  return unresolved_;
}

bool VariableReads::RefreshSlowly(uint64_t* as_of, std::vector<Tensor>* values) {
  std::lock_guard<std::mutex> lock(mu_);
  // The next request sees writes from here on.
  const uint64_t now = writes_->count() + 1;
  if (as_of_ != now) {
    std::vector<Tensor> read(variables_.size());
    std::set<std::string> unresolved;
    for (size_t i = 0; i < variables_.size(); ++i) {
      if (!Read(variables_[i], &read[i])) unresolved.insert(variables_[i].Key());
    }
    if (!unresolved.empty()) {
      unresolved_ = std::move(unresolved);
      failed_as_of_.store(now, std::memory_order_relaxed);
      return false;
    }
    values_ = std::move(read);
    as_of_ = now;
    failed_as_of_.store(0, std::memory_order_relaxed);  // A retry without a write may succeed.
  }
  // Assigned one by one, because there are pointers to these tensors.
  for (size_t i = 0; i < values_.size(); ++i) (*values)[i] = values_[i];
  *as_of = now;
  return true;
}

void VariableReads::Drop() {
  std::lock_guard<std::mutex> lock(mu_);
  values_.clear();
  as_of_ = 0;
}

bool VariableReads::Read(const Variable& variable, Tensor* value) const {
  tensorflow::core::RefCountPtr<tensorflow::Var> var;
  tensorflow::Var* found = nullptr;
  const std::string& container =
      variable.container.empty() ? resources_->default_container() : variable.container;
  if (!resources_->Lookup(container, variable.name, &found).ok()) return false;
  var.reset(found);
  if (var->copy_on_read_mode.load()) {
    tensorflow::mutex_lock lock(*var->mu());
    if (var->copy_on_read_mode.load() && !writes_->EndCopyOnRead(var.get())) return false;
  }
  tensorflow::tf_shared_lock lock(*var->mu());
  Tensor* tensor = var->tensor();
  if (!var->is_initialized || var->copy_on_read_mode.load() || tensor->dtype() != variable.dtype) {
    return false;
  }
  *value = PrivateBuffer::View(*tensor);
  return true;
}

}  // namespace session_group
