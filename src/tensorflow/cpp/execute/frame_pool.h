// Frames between runs.
#ifndef SESSION_GROUP_FRAME_POOL_H_
#define SESSION_GROUP_FRAME_POOL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "execute/frame.h"

namespace session_group {

// How much memory the frames of a group may have beyond a few for each executor.
class FrameBudget {
 public:
  bool Take(int64_t bytes);
  void GiveBack(int64_t bytes) { left_.fetch_add(bytes, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> left_{int64_t{128} << 20};
};

// The unused frames of an executor, all of one size. Thread-safe.
//
// Each stripe of threads has a frame of its own, so that threads of different stripes write to
// different cache lines, whatever session their requests go to. Threads that share a stripe, and
// all where the budget is used up, share a few frames.
class FramePool {
  struct Place;

 public:
  // Stripes are numbered from 0. The budget must outlive the pool.
  FramePool(uint32_t stripes, FrameBudget* budget) : places_(stripes), budget_(budget) {}
  ~FramePool();

  // To be called before the first Hold.
  void set_frame_bytes(int64_t bytes) { frame_bytes_ = bytes; }

  // A frame that one run uses.
  class Hold {
   public:
    Hold(FramePool* pool, uint32_t stripe);
    // Without Keep(), frees the frame.
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

    // NULL until it is made.
    std::unique_ptr<Frame> frame;
    // Leaves the frame to later runs, if there is room for it.
    void Keep();

   private:
    friend class FramePool;
    Place* place_;  // NULL if the frame has none
  };

  // Frees the frames that no run uses.
  void Drop();

 private:
  struct alignas(128) Place {
    bool TryTake() {
      return !is_taken.load(std::memory_order_relaxed) &&
             !is_taken.exchange(true, std::memory_order_acq_rel);
    }
    // Both are exchanges, so that a run that gives a frame back sees all that Drop()'s caller did
    // before, if Drop() found the place taken.
    void GiveBack() { is_taken.exchange(false, std::memory_order_acq_rel); }

    std::atomic<bool> is_taken{false};
    std::unique_ptr<Frame> frame;  // NULL while it is used
  };

  static constexpr int kShared = 4;

  Place* TakePlace(uint32_t stripe);
  static void DropIn(Place* place);

  std::vector<std::atomic<Place*>> places_;  // by stripe, each made when it is first needed
  std::array<Place, kShared> shared_;
  FrameBudget* const budget_;
  int64_t frame_bytes_ = 0;
};

}  // namespace session_group

#endif  // SESSION_GROUP_FRAME_POOL_H_
