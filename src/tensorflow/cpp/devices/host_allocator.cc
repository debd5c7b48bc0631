#include "devices/host_allocator.h"

#include <algorithm>
#include <new>

#include "devices/large_blocks.h"
#include "tsl/platform/mem.h"

// Functions of mimalloc, which the crate libmimalloc-sys compiles.
extern "C" {
void* mi_malloc_aligned(size_t size, size_t alignment);
void mi_free(void* data);
bool mi_is_in_heap_region(const void* data);
}

namespace session_group {
namespace {

// Sanitizers check only the memory of the C library.
#ifdef SESSION_GROUP_SANITIZER
constexpr bool kHasLists = false;
#else
constexpr bool kHasLists = true;
#endif

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
  if (!kHasLists) return HostAllocator::Get()->AllocateRaw(alignment, num_bytes);
  if (num_bytes >= LargeBlocks::kLeast) return LargeBlocks::Get()->Allocate(alignment, num_bytes);
  alignment = std::max(alignment, kAllocatorAlignment);
  // mimalloc needs no extra room to align sizes that are multiples of the alignment.
  return mi_malloc_aligned((num_bytes + alignment - 1) / alignment * alignment, alignment);
}

bool FastAllocator::IsLarge(const void* data) {
  return LargeBlocks::MayBeBlock(data) && data != nullptr && !mi_is_in_heap_region(data);
}

void FastAllocator::DeallocateRaw(void* data) {
  if (!kHasLists) {
    HostAllocator::Get()->DeallocateRaw(data);
  } else if (IsLarge(data)) {
    LargeBlocks::Get()->Free(data);
  } else {
    mi_free(data);
  }
}

void FastAllocator::Spread(void* data, const TableNodes& nodes) {
  if (kHasLists && IsLarge(data)) LargeBlocks::Get()->Spread(data, nodes);
}

}  // namespace session_group
