#include "execute/frame_pool.h"

#include <utility>

namespace session_group {

bool FrameBudget::Take(int64_t bytes) {
  if (left_.fetch_sub(bytes, std::memory_order_relaxed) >= bytes) return true;
  GiveBack(bytes);
  return false;
}

FramePool::~FramePool() {
  for (auto& place : places_) {
    if (Place* made = place.load(std::memory_order_acquire)) {
      delete made;
      budget_->GiveBack(frame_bytes_);
    }
  }
}

FramePool::Place* FramePool::TakePlace(uint32_t stripe) {
  std::atomic<Place*>& own = places_[stripe];
  Place* place = own.load(std::memory_order_acquire);
  if (place == nullptr && budget_->Take(frame_bytes_)) {
    auto made = std::make_unique<Place>();
    if (own.compare_exchange_strong(place, made.get(), std::memory_order_acq_rel)) {
      place = made.release();
    } else {
      budget_->GiveBack(frame_bytes_);
    }
  }
  if (place != nullptr && place->TryTake()) return place;
  for (Place& shared : shared_) {
    if (shared.TryTake()) return &shared;
  }
  return nullptr;
}

void FramePool::DropIn(Place* place) {
  if (place == nullptr || place->is_taken.exchange(true, std::memory_order_acq_rel)) return;
  place->frame.reset();
  place->GiveBack();
}

void FramePool::Drop() {
  for (auto& place : places_) DropIn(place.load(std::memory_order_acquire));
  for (Place& place : shared_) DropIn(&place);
}

FramePool::Hold::Hold(FramePool* pool, uint32_t stripe) : place_(pool->TakePlace(stripe)) {
  if (place_ != nullptr) frame = std::move(place_->frame);
}

void FramePool::Hold::Keep() {
  if (place_ == nullptr) return;
  place_->frame = std::move(frame);
  std::exchange(place_, nullptr)->GiveBack();
}

FramePool::Hold::~Hold() {
  frame.reset();
  if (place_ != nullptr) place_->GiveBack();
}

}  // namespace session_group
