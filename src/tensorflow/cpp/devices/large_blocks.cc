#include "devices/large_blocks.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "devices/table_nodes.h"

namespace session_group {
namespace {

constexpr int kNotKept = -1;
constexpr size_t kHugePage = size_t{2} << 20;
// Blocks from this size on, such as tables and the largest activations, get huge pages to save TLB
// entries. Smaller blocks would not fill many huge pages.
constexpr size_t kHuge = 4 * kHugePage;
// More than a process can map. Smaller sizes can be rounded up without an overflow.
constexpr size_t kImpossible = size_t{1} << 47;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

struct Cpu {
  unsigned number = 0;
  unsigned node = 0;
};

Cpu CurrentCpu() {
  Cpu cpu;
  return getcpu(&cpu.number, &cpu.node) == 0 ? cpu : Cpu();
}

}  // namespace

template <typename F>
void LargeBlocks::ForEachList(F f) {
  for (auto& node : lists_) {
    for (List& list : node) f(&list);
  }
}

LargeBlocks* LargeBlocks::Get() {
  static LargeBlocks* const blocks = new LargeBlocks;
  return blocks;
}

LargeBlocks::LargeBlocks() {
  // If there is no memory for the handler, fork() is only as unsafe as without it.
  pthread_atfork(nullptr, nullptr, [] { Get()->StartAnewInChild(); });
}

void LargeBlocks::StartAnewInChild() {
  // The threads that held locks don't exist in the child, and the lists may be half changed. The
  // child has only one thread, and leaks the kept blocks.
  ForEachList([](List* list) {
    new (&list->lock) std::mutex;
    list->hottest = nullptr;
    list->length = list->shortest = 0;
  });
  new (&settings_) std::mutex;
  is_making_room_.clear();
  kept_.store(0);
}

// The list for blocks of `num_bytes` bytes, and the size of its blocks.
int LargeBlocks::SizeOf(size_t num_bytes, size_t* bytes) {
  if (num_bytes > kMostKept) {
    *bytes = RoundUp(num_bytes, kPage);
    return kNotKept;
  }
  size_t power = kLeast;
  int first = 0;
  while (2 * power < num_bytes) {
    power *= 2;
    first += kSteps;
  }
  const size_t step = power / kSteps;
  *bytes = std::max(RoundUp(num_bytes, step), kLeast);
  return first + static_cast<int>((*bytes - power) / step);
}

LargeBlocks::Header* LargeBlocks::Map(size_t alignment, size_t bytes) {
  const size_t mapped = bytes + kPage + (alignment > kPage ? alignment : 0);
  void* const mapping =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(mapping);
  const uintptr_t end = begin + mapped;
  const uintptr_t data = RoundUp(begin + kPage, alignment);
  // Unmaps what alignment does not need. A failure costs no memory, because these pages were never
  // touched.
  if (data - kPage > begin) munmap(mapping, data - kPage - begin);
  if (data + bytes < end) munmap(reinterpret_cast<void*>(data + bytes), end - data - bytes);
  if (bytes >= kHuge) {
    // Only a hint: without huge pages, the kernel uses small ones.
    madvise(reinterpret_cast<void*>(data), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  }
  auto* const block = reinterpret_cast<Header*>(data - kPage);
  block->bytes = bytes;
  return block;
}

void LargeBlocks::Unmap(Header* block) {
  const size_t mapped = block->bytes + kPage;
  // The system may refuse to split a mapping, but it can always take the pages back.
  if (munmap(block, mapped) != 0) madvise(block, mapped, MADV_DONTNEED);
}

void* LargeBlocks::Allocate(size_t alignment, size_t num_bytes) {
  if (num_bytes > kImpossible || alignment > kImpossible) return nullptr;
  size_t bytes;
  int size = SizeOf(num_bytes, &bytes);
  const size_t usual_alignment = bytes >= kHuge ? kHugePage : kPage;
  // Spread memory is not kept, for no later tensor is to lie on several nodes.
  const TableNodes* const nodes = TableNodes::current();
  if (alignment > usual_alignment || nodes != nullptr) size = kNotKept;
  alignment = std::max(alignment, usual_alignment);

  const Cpu cpu = CurrentCpu();
  const unsigned node = cpu.node % kNodes;
  List* const list = size == kNotKept ? nullptr : &lists_[node][size];
  Header* block = list == nullptr ? nullptr : TakeKept(list, cpu.number);
  if (block == nullptr) {
    block = Map(alignment, bytes);
    if (block == nullptr) {
      ReleaseAll();
      block = Map(alignment, bytes);
    }
    if (block == nullptr) return nullptr;
    block->size = size;
    block->node = node;
    // Before its pages are first written.
    if (nodes != nullptr) nodes->Interleave(reinterpret_cast<char*>(block) + kPage, bytes);
    if (list == nullptr) {
      not_kept_in_use_.fetch_add(bytes, std::memory_order_relaxed);
      not_kept_misses_.fetch_add(1, std::memory_order_relaxed);
    } else {
      std::lock_guard<std::mutex> lock(list->lock);
      list->in_use_bytes += bytes;
      ++list->misses;
    }
  }
  return reinterpret_cast<char*>(block) + kPage;
}

// Prefers a block that this CPU used last, because its bytes may still be in the cache. Bytes of
// another CPU's block would come from that CPU's cache, and that CPU would miss them: convolutions
// ran at 0.7 of their speed when two threads exchanged blocks all the time.
LargeBlocks::Header* LargeBlocks::TakeKept(List* list, unsigned cpu) {
  Header* block;
  {
    std::lock_guard<std::mutex> lock(list->lock);
    if (list->hottest == nullptr) return nullptr;
    Header** place = &list->hottest;
    for (int i = 1; i < kLooks && (*place)->cpu != cpu && (*place)->colder != nullptr; ++i) {
      place = &(*place)->colder;
    }
    block = *place;
    *place = block->colder;
    list->shortest = std::min(list->shortest, --list->length);
    list->in_use_bytes += block->bytes;
    ++list->hits;
    list->moved += block->cpu != cpu;
  }
  kept_.fetch_sub(block->bytes);
  return block;
}

void LargeBlocks::Free(void* data) {
  auto* const block = reinterpret_cast<Header*>(static_cast<char*>(data) - kPage);
  if (block->size == kNotKept) {
    not_kept_in_use_.fetch_sub(block->bytes, std::memory_order_relaxed);
    Unmap(block);
  } else if (!Keep(block)) {
    Unmap(block);
  }
}

void LargeBlocks::Spread(void* data, const TableNodes& nodes) {
  auto* const block = reinterpret_cast<Header*>(static_cast<char*>(data) - kPage);
  if (block->size != kNotKept) {
    {
      List* const list = &lists_[block->node][block->size];
      std::lock_guard<std::mutex> lock(list->lock);
      list->in_use_bytes -= block->bytes;
    }
    not_kept_in_use_.fetch_add(block->bytes, std::memory_order_relaxed);
    block->size = kNotKept;
  }
  nodes.Interleave(data, block->bytes);
}

bool LargeBlocks::Keep(Header* block) {
  block->cpu = CurrentCpu().number;
  const bool has_room = Reserve(block->bytes) || MakeRoom(block->bytes);
  {
    List* const list = &lists_[block->node][block->size];
    std::lock_guard<std::mutex> lock(list->lock);
    list->in_use_bytes -= block->bytes;
    if (!has_room) return false;
    block->colder = list->hottest;
    list->hottest = block;
    ++list->length;
  }
  // Between the check and now, the limit may have fallen and the lists may have been emptied.
  if (kept_.load() > limit_.load()) ReleaseAll();
  return true;
}

bool LargeBlocks::Reserve(size_t bytes) {
  size_t kept = kept_.load();
  do {
    const size_t limit = limit_.load();
    if (kept > limit || bytes > limit - kept) return false;
  } while (!kept_.compare_exchange_weak(kept, kept + bytes));
  return true;
}

LargeBlocks::Header* LargeBlocks::Cut(List* list, size_t count) {
  Header** place = &list->hottest;
  for (size_t i = count; i < list->length; ++i) place = &(*place)->colder;
  list->length -= count;
  list->shortest -= std::min(list->shortest, count);
  Header* const blocks = *place;
  *place = nullptr;
  return blocks;
}

void LargeBlocks::Release(Header* blocks) {
  while (blocks != nullptr) {
    Header* const block = blocks;
    blocks = block->colder;
    const size_t bytes = block->bytes;
    Unmap(block);
    kept_.fetch_sub(bytes);
  }
}

void LargeBlocks::ReleaseAll() {
  ForEachList([this](List* list) {
    Header* blocks;
    {
      std::lock_guard<std::mutex> lock(list->lock);
      blocks = Cut(list, list->length);
    }
    Release(blocks);
  });
}

void LargeBlocks::ReleaseUnused() {
  ForEachList([this](List* list) {
    Header* blocks;
    {
      std::lock_guard<std::mutex> lock(list->lock);
      blocks = Cut(list, list->shortest);
      list->shortest = list->length;
    }
    Release(blocks);
  });
}

bool LargeBlocks::MakeRoom(size_t bytes) {
  // A second thread that makes room would only block the first.
  if (bytes > limit_.load() || is_making_room_.test_and_set()) return false;
  bool has_room = false;
  ForEachList([&](List* list) {
    if (has_room) return;
    Header* blocks;
    {
      std::lock_guard<std::mutex> lock(list->lock);
      blocks = Cut(list, list->shortest);
    }
    if (blocks == nullptr) return;
    Release(blocks);
    has_room = Reserve(bytes);
  });
  is_making_room_.clear();
  return has_room;
}

LargeBlocks::User::User() {
  LargeBlocks* const blocks = Get();
  std::lock_guard<std::mutex> lock(blocks->settings_);
  ++blocks->users_;
  blocks->Update();
}

LargeBlocks::User::~User() {
  LargeBlocks* const blocks = Get();
  std::lock_guard<std::mutex> lock(blocks->settings_);
  --blocks->users_;
  blocks->Update();
  blocks->ReleaseAll();
}

void LargeBlocks::SetLimit(size_t bytes) {
  std::lock_guard<std::mutex> lock(settings_);
  asked_limit_ = bytes;
  Update();
}

void LargeBlocks::Update() {
  limit_.store(users_ == 0 ? 0 : asked_limit_);
  if (kept_.load() > limit_.load()) ReleaseAll();
}

LargeBlocks::Stats LargeBlocks::stats() {
  Stats stats = {};
  stats.in_use_bytes = not_kept_in_use_.load();
  stats.kept_bytes = kept_.load();
  stats.limit_bytes = limit_.load();
  stats.misses = not_kept_misses_.load();
  ForEachList([&stats](List* list) {
    std::lock_guard<std::mutex> lock(list->lock);
    stats.in_use_bytes += list->in_use_bytes;
    stats.hits += list->hits;
    stats.misses += list->misses;
    stats.moved += list->moved;
  });
  return stats;
}

}  // namespace session_group
