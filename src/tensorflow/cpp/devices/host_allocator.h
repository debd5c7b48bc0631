// Memory for the tensors of a group.
#ifndef SESSION_GROUP_HOST_ALLOCATOR_H_
#define SESSION_GROUP_HOST_ALLOCATOR_H_

#include "tensorflow/core/framework/allocator.h"

namespace session_group {

class TableNodes;

// Takes memory from the C library, or from the allocator that the program is linked with. The stock
// wheel's own allocator never returns the memory of closed groups from its pools, and all sessions
// of a process share its locks.
class HostAllocator final : public tensorflow::Allocator {
 public:
  // Never destroyed: tensors outlive groups.
  static HostAllocator* Get();

  std::string Name() override { return "session_group_host"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override;
  void DeallocateRaw(void* data) override;
};

// Chooses an allocator by size. Small tensors come from mimalloc, which has free lists for each
// thread: the C library takes long to allocate aligned memory, and most tensors of a request are
// small. Large tensors come from LargeBlocks.
class FastAllocator final : public tensorflow::Allocator {
 public:
  static FastAllocator* Get();

  std::string Name() override { return "session_group_fast"; }
  void* AllocateRaw(size_t alignment, size_t num_bytes) override;
  void DeallocateRaw(void* data) override;
  // Spreads the memory of a tensor over nodes, if it came from LargeBlocks.
  void Spread(void* data, const TableNodes& nodes);

 private:
  static bool IsLarge(const void* data);
};

}  // namespace session_group

#endif  // SESSION_GROUP_HOST_ALLOCATOR_H_
