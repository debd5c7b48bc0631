#include "graph/constant_store.h"

#include <cstring>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace session_group {
namespace {

using tensorflow::Tensor;

// Smaller constants are not worth the search for an equal one.
constexpr size_t kSmall = 1024;

absl::string_view Bytes(const Tensor& tensor) {
  return {static_cast<const char*>(tensor.data()), tensor.TotalBytes()};
}

}  // namespace

Tensor ConstantStore::Share(const Tensor& tensor) {
  if (!tensorflow::DataTypeCanUseMemcpy(tensor.dtype()) || tensor.TotalBytes() < kSmall) {
    return tensor;
  }
  const absl::string_view bytes = Bytes(tensor);
  const uint64_t hash = absl::HashOf(bytes);
  std::lock_guard<std::mutex> lock(mu_);
  const auto [begin, end] = tensors_.equal_range(hash);
  for (auto known = begin; known != end; ++known) {
    const Tensor& other = known->second;
    if (other.dtype() == tensor.dtype() && other.shape() == tensor.shape() &&
        std::memcmp(other.data(), bytes.data(), bytes.size()) == 0) {
      return other;
    }
  }
  return tensors_.emplace(hash, tensor)->second;
}

absl::Status ConstantStore::FromProto(const tensorflow::TensorProto& proto, Tensor* tensor) {
  Tensor parsed;
  const TableNodes::Scope spreads(nodes_);
  if (!tensorflow::DataType_IsValid(proto.dtype()) || !parsed.FromProto(allocator_, proto)) {
    return absl::InvalidArgumentError(
        "a constant's value can't be read from the graph: export the model again");
  }
  *tensor = Share(parsed);
  return absl::OkStatus();
}

void ConstantStore::Sweep() {
  std::lock_guard<std::mutex> lock(mu_);
  for (auto next = tensors_.begin(); next != tensors_.end();) {
    next = next->second.RefCountIsOne() ? tensors_.erase(next) : std::next(next);
  }
}

int64_t ConstantStore::bytes() const {
  std::lock_guard<std::mutex> lock(mu_);
  int64_t bytes = 0;
  for (const auto& entry : tensors_) bytes += entry.second.TotalBytes();
  return bytes;
}

}  // namespace session_group
