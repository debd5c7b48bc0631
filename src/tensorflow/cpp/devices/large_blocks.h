// Memory of large tensors, kept for the next request when it is freed.
#ifndef SESSION_GROUP_LARGE_BLOCKS_H_
#define SESSION_GROUP_LARGE_BLOCKS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace session_group {

// Maps blocks of 1 MiB and more. A block that is freed stays mapped, so that the request that needs
// one next finds its pages there: the system would clear them again, one page fault each.
//
// Sizes are rounded up to the next of eight steps between powers of two, so that at most an eighth
// of a block is unused. What is kept never exceeds a limit, nor the end of the last group, and is
// returned to the system when nobody has needed it for a while: ReleaseUnused().
//
// There is a list for each size and each NUMA node, with a lock of its own on cache lines of its
// own; a block returns to the node where it was first used. What all threads write is one counter
// of bytes.
class LargeBlocks final {
 public:
  struct Stats {
    uint64_t in_use_bytes;
    uint64_t kept_bytes;
    uint64_t limit_bytes;
    uint64_t hits;    // allocations served by a block that was kept
    uint64_t misses;  // those for which one was mapped
    uint64_t moved;   // hits by a block that another CPU had last
  };

  // Nothing is kept while nobody holds one. Giving one back releases all that is kept: it is not
  // known whose it was.
  class User {
   public:
    User();
    ~User();
    User(const User&) = delete;
    User& operator=(const User&) = delete;
  };

  // What is smaller is not for this class.
  static constexpr size_t kLeast = size_t{1} << 20;

  // Never destroyed: tensors outlive groups.
  static LargeBlocks* Get();

  // False for most pointers to other memory, without a look at shared data: blocks begin with a
  // page.
  static bool MayBeBlock(const void* data) {
    return reinterpret_cast<uintptr_t>(data) % kPage == 0;
  }

  // Null where the system refuses.
  void* Allocate(size_t alignment, size_t num_bytes);
  void Free(void* data);

  void SetLimit(size_t bytes);
  // Releases the blocks of each list that nobody has needed since the last call.
  void ReleaseUnused();
  Stats stats();

 private:
  static constexpr size_t kPage = 4096;
  static constexpr int kSteps = 8;
  // Larger blocks are always returned to the system.
  static constexpr size_t kMostKept = size_t{1} << 30;
  static constexpr int kSizes = 10 * kSteps + 1;
  static constexpr unsigned kNodes = 8;
  // How many blocks of a list are looked at.
  static constexpr int kLooks = 16;

  // In the page before the block.
  struct Header {
    size_t bytes;    // of the block
    int size;        // its list; kNotKept for none
    unsigned node;   // where it was mapped
    unsigned cpu;    // that had it last, while it is in a list
    Header* colder;  // while it is in a list
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
  // Takes the coldest blocks out of a list whose lock is held.
  static Header* Cut(List* list, size_t count);
  void Release(Header* blocks);
  void ReleaseAll();
  // Releases what nobody has needed since the last ReleaseUnused() until so many bytes fit in.
  bool MakeRoom(size_t bytes);
  void Update();
  // Of a forked process, which may free tensors that it got from its parent.
  void StartAnewInChild();
  template <typename F>
  void ForEachList(F f);

  std::array<std::array<List, kSizes>, kNodes> lists_;

  // On a cache line of their own, which every allocation and every free writes.
  alignas(128) std::atomic<size_t> kept_{0};
  // What all read and hardly anybody writes: the limit in force, which is 0 without users.
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
