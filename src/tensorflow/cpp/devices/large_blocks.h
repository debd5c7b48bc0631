// Keeps the memory of large tensors for later requests.
#ifndef SESSION_GROUP_LARGE_BLOCKS_H_
#define SESSION_GROUP_LARGE_BLOCKS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace session_group {

class TableNodes;

// Maps blocks of 1 MiB and more. A freed block stays mapped, so that the next request finds its
// pages there. The system would clear them again, with a page fault for each.
//
// Sizes are rounded up to the next of eight steps between powers of two, so that at most an eighth
// of a block is unused. The kept memory never exceeds a limit. It is returned to the system when it
// has not been needed for a while, see ReleaseUnused(), and when the last group ends.
//
// There is a list for each size and each NUMA node, with its own lock on its own cache lines. A
// block returns to the list of the node where it was first used. The only shared counter that all
// threads write is the number of kept bytes.
class LargeBlocks final {
 public:
  struct Stats {
    uint64_t in_use_bytes;
    uint64_t kept_bytes;
    uint64_t limit_bytes;
    uint64_t hits;    // allocations that a kept block served
    uint64_t misses;  // allocations that mapped a block
    uint64_t moved;   // hits with a block that another CPU used last
  };

  // Memory is kept only while a User exists. The end of any User releases all kept memory, because
  // blocks don't record their user.
  class User {
   public:
    User();
    ~User();
    User(const User&) = delete;
    User& operator=(const User&) = delete;
  };

  // The smallest size that this class is for.
  static constexpr size_t kLeast = size_t{1} << 20;

  // Never destroyed: tensors outlive groups.
  static LargeBlocks* Get();

  // False for most pointers to other memory, without an access to shared data, because blocks begin
  // at a page.
  static bool MayBeBlock(const void* data) {
    return reinterpret_cast<uintptr_t>(data) % kPage == 0;
  }

  // NULL if the system refuses. In a TableNodes::Scope, the memory is new and spread.
  void* Allocate(size_t alignment, size_t num_bytes);
  void Free(void* data);
  // Spreads a block that is in use over nodes. It is not kept when it is freed.
  void Spread(void* data, const TableNodes& nodes);

  void SetLimit(size_t bytes);
  // Releases the blocks that were not needed since the last call.
  void ReleaseUnused();
  Stats stats();

 private:
  static constexpr size_t kPage = 4096;
  static constexpr int kSteps = 8;
  // Larger blocks are always returned to the system.
  static constexpr size_t kMostKept = size_t{1} << 30;
  static constexpr int kSizes = 10 * kSteps + 1;
  static constexpr unsigned kNodes = 8;
  // How many blocks of a list TakeKept() looks at.
  static constexpr int kLooks = 16;

  // Lies in the page before the block.
  struct Header {
    size_t bytes;    // of the block
    int size;        // the number of its list, or kNotKept
    unsigned node;   // where it was mapped
    unsigned cpu;    // that used it last, while it is in a list
    Header* colder;  // the next block of the list
  };

  struct alignas(128) List {
    std::mutex lock;
    Header* hottest = nullptr;
    size_t length = 0;
    size_t shortest = 0;  // since the last ReleaseUnused()
    uint64_t in_use_bytes = 0;
    uint64_t hits = 0;
    uint64_t misses = 0;
    uint64_t moved = 0;
  };

  LargeBlocks();

  static int SizeOf(size_t num_bytes, size_t* bytes);
  static Header* Map(size_t alignment, size_t bytes);
  static void Unmap(Header* block);

  Header* TakeKept(List* list, unsigned cpu);
  bool Keep(Header* block);
  bool Reserve(size_t bytes);
  // Removes the coldest blocks from a list. The caller holds its lock.
  static Header* Cut(List* list, size_t count);
  void Release(Header* blocks);
  void ReleaseAll();
  // Releases blocks that were not needed since the last ReleaseUnused(), until there is room for
  // `bytes`.
  bool MakeRoom(size_t bytes);
  void Update();
  // For a forked process, which may free tensors of its parent.
  void StartAnewInChild();
  template <typename F>
  void ForEachList(F f);

  std::array<std::array<List, kSizes>, kNodes> lists_;

  // On its own cache line, because every allocation and every free writes it.
  alignas(128) std::atomic<size_t> kept_{0};
  // Read by all threads and rarely written: the current limit, which is 0 without users.
  alignas(128) std::atomic<size_t> limit_{0};
  std::atomic<size_t> not_kept_in_use_{0};
  std::atomic<uint64_t> not_kept_misses_{0};
  std::atomic_flag is_making_room_ = ATOMIC_FLAG_INIT;
  std::mutex settings_;
  size_t users_ = 0;
  size_t asked_limit_ = 0;
};

}  // namespace session_group

#endif  // SESSION_GROUP_LARGE_BLOCKS_H_
