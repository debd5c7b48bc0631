#include "host_allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "tsl/platform/mem.h"

// Of mimalloc, which the crate libmimalloc-sys compiles.
extern "C" {
void* mi_malloc_aligned(size_t size, size_t alignment);
void mi_free(void* data);
bool mi_is_in_heap_region(const void* data);
}

namespace session_group {
namespace {

// From here on the system's cost is small beside the use of the memory, and what is freed goes back
// to the system at once.
constexpr size_t kLarge = size_t{1} << 20;

constexpr size_t kHugePage = size_t{2} << 20;
// Sanitizers look into the C library's memory only.
#ifdef SESSION_GROUP_SANITIZER
constexpr bool kHasLists = false;
#else
constexpr bool kHasLists = true;
#endif
// Less than this is rather for a while than for a table.
constexpr size_t kHuge = 4 * kHugePage;

}  // namespace

HostAllocator* HostAllocator::Get() {
  static HostAllocator* const allocator = new HostAllocator;
  return allocator;
}

void* HostAllocator::AllocateRaw(size_t alignment, size_t num_bytes) {
  return tsl::port::AlignedMalloc(
      num_bytes, static_cast<std::align_val_t>(std::max(alignment, kAllocatorAlignment)));
}

void HostAllocator::DeallocateRaw(void* data) { tsl::port::AlignedFree(data); }

FastAllocator* FastAllocator::Get() {
  static FastAllocator* const allocator = new FastAllocator;
  return allocator;
}

void* FastAllocator::AllocateRaw(size_t alignment, size_t num_bytes) {
  if (num_bytes >= kHuge) {
    void* data = HostAllocator::Get()->AllocateRaw(std::max(alignment, kHugePage), num_bytes);
    // A wish: where the system has none to give, small ones do.
    if (data != nullptr) madvise(data, num_bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
    return data;
  }
  if (num_bytes >= kLarge || !kHasLists)
    return HostAllocator::Get()->AllocateRaw(alignment, num_bytes);
  alignment = std::max(alignment, kAllocatorAlignment);
  // Sizes that are multiples of the alignment are aligned as they come.
  return mi_malloc_aligned((num_bytes + alignment - 1) / alignment * alignment, alignment);
}

void FastAllocator::DeallocateRaw(void* data) {
  if (mi_is_in_heap_region(data)) {
    mi_free(data);
  } else {
    HostAllocator::Get()->DeallocateRaw(data);
  }
}

}  // namespace session_group
