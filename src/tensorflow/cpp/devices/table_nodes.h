// The NUMA nodes over which memory is spread that all sessions read.
#ifndef SESSION_GROUP_TABLE_NODES_H_
#define SESSION_GROUP_TABLE_NODES_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace session_group {

// By default Linux puts a page on the node of the thread that first writes it, so that a table that
// one thread fills lies on one node, and all sessions of other nodes read it from there: more
// slowly, and all through the same memory controllers. Interleaved, page by page, each session
// reads its share from each node.
//
// Thread-safe after Set().
class TableNodes final {
 public:
  // To be called once, before there are sessions. Without nodes, nothing is spread.
  void Set(absl::Span<const uint32_t> nodes);
  bool empty() const { return mask_.empty(); }

  // Spreads the whole pages of this memory, where they have already been written, too.
  void Interleave(void* data, size_t bytes) const;
  // The first error that the system had to spread memory, as an errno; 0 without one.
  int error() const { return error_.load(std::memory_order_relaxed); }

  // While it exists, the calling thread gets large memory that is spread over these nodes, if there
  // are any.
  class Scope {
   public:
    explicit Scope(const TableNodes* nodes);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    const TableNodes* const outer_;
  };
  // Those of the innermost scope of the calling thread, or NULL.
  static const TableNodes* current();

 private:
  std::vector<unsigned long> mask_;
  mutable std::atomic<int> error_{0};
};

}  // namespace session_group

#endif  // SESSION_GROUP_TABLE_NODES_H_
