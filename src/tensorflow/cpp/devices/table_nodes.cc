#include "devices/table_nodes.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace session_group {
namespace {

constexpr size_t kBits = 8 * sizeof(unsigned long);

thread_local const TableNodes* current_nodes = nullptr;

}  // namespace

void TableNodes::Set(absl::Span<const uint32_t> nodes) {
  for (const uint32_t node : nodes) {
    if (mask_.size() <= node / kBits) mask_.resize(node / kBits + 1);
    mask_[node / kBits] |= 1ul << (node % kBits);
  }
}

void TableNodes::Interleave(void* data, size_t bytes) const {
  if (mask_.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (address + page - 1) / page * page;
  const uintptr_t end = (address + bytes) / page * page;
  if (begin >= end) return;
  // The system call itself, because libnuma would be one more library to link. Linux counts the
  // bits of the mask and one.
  if (syscall(SYS_mbind, begin, end - begin, MPOL_INTERLEAVE, mask_.data(),
              mask_.size() * kBits + 1, MPOL_MF_MOVE) != 0) {
    int none = 0;
    error_.compare_exchange_strong(none, errno);
  }
}

TableNodes::Scope::Scope(const TableNodes* nodes) : outer_(current_nodes) {
  current_nodes = nodes->empty() ? nullptr : nodes;
}

TableNodes::Scope::~Scope() { current_nodes = outer_; }

const TableNodes* TableNodes::current() { return current_nodes; }

}  // namespace session_group
