#include "execute/resolved_reads.h"

#include <utility>

#include "graph/private_buffer.h"

namespace session_group {
namespace {

using tensorflow::Tensor;

// After this many requests, what could not be read is tried again, even without a write.
constexpr uint32_t kRetryAfter = 64;

}  // namespace

size_t ResolvedReads::Add(Variable variable) {
  for (size_t i = 0; i < variables_.size(); ++i) {
    if (variables_[i] == variable && variables_[i].dtype == variable.dtype) return i;
  }
  variables_.push_back(std::move(variable));
  return variables_.size() - 1;
}

size_t ResolvedReads::AddTable(Name table) {
  for (size_t i = 0; i < tables_.size(); ++i) {
    if (tables_[i] == table) return i;
  }
  tables_.push_back(std::move(table));
  return tables_.size() - 1;
}

bool ResolvedReads::HasFailed() {
  const uint64_t failed = failed_as_of_.load(std::memory_order_relaxed);
  if (failed == 0 || !IsUpToDate(failed)) return false;
  return since_failure_.fetch_add(1, std::memory_order_relaxed) % kRetryAfter != kRetryAfter - 1;
}

std::set<std::string> ResolvedReads::Unresolved() {
  std::lock_guard<std::mutex> lock(mu_);
  return unresolved_;
}

bool ResolvedReads::RefreshSlowly(Values* values) {
  std::lock_guard<std::mutex> lock(mu_);
  // The next request sees writes from here on.
  const uint64_t now = writes_->count() + 1;
  if (values_.as_of != now) {
    Values read;
    std::set<std::string> unresolved;
    for (const Variable& variable : variables_) {
      read.variables.emplace_back();
      if (!Read(variable, &read.variables.back())) unresolved.insert(Key(variable));
    }
    for (const Name& table : tables_) {
      read.tables.push_back(Find<tensorflow::lookup::LookupInterface>(table));
      if (read.tables.back() == nullptr) unresolved.insert(TableKey(table));
    }
    if (!unresolved.empty()) {
      unresolved_ = std::move(unresolved);
      failed_as_of_.store(now, std::memory_order_relaxed);
      return false;
    }
    values_ = std::move(read);
    values_.as_of = now;
    failed_as_of_.store(0, std::memory_order_relaxed);  // A retry without a write may succeed.
  }
  // Kernels that pass a value on count references to it, so each frame has a view of its own.
  for (size_t i = 0; i < variables_.size(); ++i) {
    values->variables[i] = PrivateBuffer::View(values_.variables[i]);
  }
  for (size_t i = 0; i < tables_.size(); ++i) values->tables[i] = values_.tables[i].GetNewRef();
  values->as_of = now;
  return true;
}

void ResolvedReads::Drop() {
  Values dropped;
  std::lock_guard<std::mutex> lock(mu_);
  std::swap(values_, dropped);
}

bool ResolvedReads::Read(const Variable& variable, Tensor* value) const {
  const auto var = Find<tensorflow::Var>(variable);
  if (var == nullptr) return false;
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

template <typename Resource>
tensorflow::core::RefCountPtr<Resource> ResolvedReads::Find(const Name& name) const {
  const std::string& container =
      name.container.empty() ? resources_->default_container() : name.container;
  Resource* found = nullptr;
  if (!resources_->Lookup(container, name.name, &found).ok()) found = nullptr;
  return tensorflow::core::RefCountPtr<Resource>(found);
}

}  // namespace session_group
