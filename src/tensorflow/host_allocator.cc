#include "host_allocator.h"

#include <algorithm>
#include <new>

#include "tsl/platform/mem.h"

namespace session_group {

HostAllocator* HostAllocator::Get() {
  static HostAllocator* const allocator = new HostAllocator;
  return allocator;
}

void* HostAllocator::AllocateRaw(size_t alignment, size_t num_bytes) {
  return tsl::port::AlignedMalloc(
      num_bytes, static_cast<std::align_val_t>(std::max(alignment, kAllocatorAlignment)));
}

void HostAllocator::DeallocateRaw(void* data) { tsl::port::AlignedFree(data); }

}  // namespace session_group
