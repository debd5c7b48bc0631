#include "execute/lookups.h"

#include <cstdint>
#include <cstring>

#include "execute/prefetch.h"

namespace session_group {
namespace {

using tensorflow::Tensor;
using tensorflow::TensorShape;

// More rows than this would not fit into the first-level cache, and evict the first ones.
constexpr int64_t kMostPrefetched = 2048;

// The rows of a table.
struct Rows {
  const char* base;
  size_t row_bytes;
  const Tensor* indices;
};

template <typename Index>
bool InRange(const Tensor& indices, int64_t limit) {
  const Index* index = static_cast<const Index*>(indices.data());
  const int64_t n = indices.NumElements();
  bool in_range = true;
  for (int64_t i = 0; i < n; ++i) {
    in_range &= static_cast<uint64_t>(index[i]) < static_cast<uint64_t>(limit);
  }
  return in_range;
}

template <typename Index>
void Prefetch(const Rows& rows) {
  const Index* index = static_cast<const Index*>(rows.indices->data());
  const int64_t n = rows.indices->NumElements();
  for (int64_t i = 0; i < n; ++i) {
    PrefetchRow(rows.base + index[i] * rows.row_bytes, rows.row_bytes);
  }
}

template <typename Index>
void Copy(const Rows& rows, char* to, size_t stride) {
  const Index* index = static_cast<const Index*>(rows.indices->data());
  const int64_t n = rows.indices->NumElements();
  const size_t size = rows.row_bytes;
  // If the compiler knows the size, it copies a row by a few instructions.
  const auto copy = [&](auto copy_row) {
    for (int64_t i = 0; i < n; ++i, to += stride) copy_row(to, rows.base + index[i] * size);
  };
  switch (size) {
    case 4:
      return copy([](char* to, const char* from) { std::memcpy(to, from, 4); });
    case 32:
      return copy([](char* to, const char* from) { std::memcpy(to, from, 32); });
    case 64:
      return copy([](char* to, const char* from) { std::memcpy(to, from, 64); });
    case 128:
      return copy([](char* to, const char* from) { std::memcpy(to, from, 128); });
    default:
      return copy([size](char* to, const char* from) { std::memcpy(to, from, size); });
  }
}

bool Is64Bit(const Tensor& indices) { return indices.dtype() == tensorflow::DT_INT64; }

}  // namespace

Lookups::Outcome Lookups::Run(const tensorflow::TensorValue* inputs,
                              tensorflow::Allocator* allocator, Tensor* outputs) const {
  int64_t prefetched = 0;
  for (const Output& output : outputs_) {
    for (const Piece& piece : output.pieces) {
      if (piece.params < 0) continue;
      const Tensor& params = *inputs[piece.params].tensor;
      const Tensor& indices = *inputs[piece.indices].tensor;
      if (params.dims() < 1) return Outcome::kBadShape;
      const int64_t limit = params.dim_size(0);
      const bool in_range =
          Is64Bit(indices) ? InRange<int64_t>(indices, limit) : InRange<int32_t>(indices, limit);
      if (!in_range) return Outcome::kBadIndex;
      prefetched += indices.NumElements();
      if (limit == 0 || prefetched > kMostPrefetched) continue;
      const Rows rows = {static_cast<const char*>(params.data()), params.TotalBytes() / limit,
                         &indices};
      Is64Bit(indices) ? Prefetch<int64_t>(rows) : Prefetch<int32_t>(rows);
    }
  }

  for (size_t o = 0; o < outputs_.size(); ++o) {
    const Output& output = outputs_[o];
    // `outer` is the shape of the indices, or of a concatenated tensor without its last axis;
    // `shape` is the shape of the result.
    TensorShape outer;
    TensorShape shape;
    int64_t width = 0;
    tensorflow::DataType dtype = tensorflow::DT_INVALID;
    for (const Piece& piece : output.pieces) {
      const Tensor& last = *inputs[piece.params < 0 ? piece.indices : piece.params].tensor;
      TensorShape own = inputs[piece.indices].tensor->shape();
      if (output.is_concatenation) {
        if (piece.params < 0) {
          if (own.dims() < 1) return Outcome::kBadShape;
          own.RemoveLastDims(1);
        } else if (last.dims() != 2) {
          return Outcome::kBadShape;
        }
        const bool is_last = output.axis == -1 || output.axis == own.dims();
        if (!is_last || (dtype != tensorflow::DT_INVALID && own != outer)) {
          return Outcome::kBadShape;
        }
        width += last.dim_size(last.dims() - 1);
        outer = own;
        shape = own;
      } else {
        shape = own;
        for (int d = 1; d < last.dims(); ++d) {
          if (!shape.AddDimWithStatus(last.dim_size(d)).ok()) return Outcome::kBadShape;
        }
      }
      dtype = last.dtype();
    }
    if (output.is_concatenation && !shape.AddDimWithStatus(width).ok()) return Outcome::kBadShape;

    Tensor result(allocator, dtype, shape);
    if (!result.IsInitialized()) return Outcome::kNoMemory;
    if (shape.num_elements() > 0) {
      char* to = static_cast<char*>(result.data());
      const size_t element = tensorflow::DataTypeSize(dtype);
      const size_t stride = output.is_concatenation ? width * element : 0;
      for (const Piece& piece : output.pieces) {
        const Tensor& indices = *inputs[piece.indices].tensor;
        if (piece.params < 0) {
          const size_t size = indices.dim_size(indices.dims() - 1) * element;
          const char* from = static_cast<const char*>(indices.data());
          char* row = to;
          for (size_t left = indices.TotalBytes(); left > 0; left -= size, row += stride) {
            std::memcpy(row, from, size);
            from += size;
          }
          to += size;
          continue;
        }
        const Tensor& params = *inputs[piece.params].tensor;
        const Rows rows = {static_cast<const char*>(params.data()),
                           params.TotalBytes() / params.dim_size(0), &indices};
        const size_t step = output.is_concatenation ? stride : rows.row_bytes;
        Is64Bit(indices) ? Copy<int64_t>(rows, to, step) : Copy<int32_t>(rows, to, step);
        to += rows.row_bytes;
      }
    }
    outputs[o] = std::move(result);
  }
  return Outcome::kDone;
}

}  // namespace session_group
