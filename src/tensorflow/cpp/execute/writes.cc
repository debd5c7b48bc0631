#include "execute/writes.h"

#include <algorithm>

namespace session_group {
namespace {

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

}  // namespace session_group
