// Memory for the tensors of a group.
#ifndef SESSION_GROUP_HOST_ALLOCATOR_H_
#define SESSION_GROUP_HOST_ALLOCATOR_H_

#include "tensorflow/core/framework/allocator.h"

namespace session_group {

// Takes memory from the C library, or from whatever allocator the program is linked with. The
// stock wheel's own keeps in its pools, for good, what a closed group has freed, and all
// sessions of a process meet on its locks.
class HostAllocator final : public tensorflow::Allocator {
 public:
  // Never destroyed: tensors outlive groups.
  static HostAllocator* Get();

  std::string Name() override { return "session_group_host"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override;
  void DeallocateRaw(void* data) override;
};

// Chooses by size. Small tensors come from mimalloc, from lists that each thread has to itself: the
// C library's aligned memory is slow to get, and most of what a request allocates is small. Large
// ones come from LargeBlocks.
class FastAllocator final : public tensorflow::Allocator {
 public:
  static FastAllocator* Get();

  std::string Name() override { return "session_group_fast"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override;
  void DeallocateRaw(void* data) override;
};

}  // namespace session_group

#endif  // SESSION_GROUP_HOST_ALLOCATOR_H_
