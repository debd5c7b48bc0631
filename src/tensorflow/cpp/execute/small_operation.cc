#include "execute/small_operation.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "tensorflow/core/framework/node_def_util.h"

namespace session_group {
namespace {

using tensorflow::Allocator;
using tensorflow::DataType;
using tensorflow::Node;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::TensorValue;

// More elements than this are a kernel's work.
constexpr int64_t kMostElements = 32;

bool IsInteger(DataType type) {
  return type == tensorflow::DT_INT32 || type == tensorflow::DT_INT64;
}

// Small integers, of any shape.
bool AreSmall(const Tensor& tensor) {
  return IsInteger(tensor.dtype()) && tensor.NumElements() <= kMostElements;
}

bool IsSmallVector(const Tensor& tensor) { return tensor.dims() == 1 && AreSmall(tensor); }

// Vectors of one integer each.
bool AreOfOne(const TensorValue* inputs, int n) {
  return std::all_of(inputs, inputs + n, [](const TensorValue& input) {
    return IsSmallVector(*input.tensor) && input.tensor->NumElements() == 1;
  });
}

int64_t At(const Tensor& integers, int64_t i) {
  return integers.dtype() == tensorflow::DT_INT32 ? static_cast<const int32_t*>(integers.data())[i]
                                                  : static_cast<const int64_t*>(integers.data())[i];
}

void SetAt(Tensor* integers, int64_t i, int64_t value) {
  if (integers->dtype() == tensorflow::DT_INT32) {
    static_cast<int32_t*>(integers->data())[i] = static_cast<int32_t>(value);
  } else {
    static_cast<int64_t*>(integers->data())[i] = value;
  }
}

bool Fits(DataType type, int64_t value) {
  return type != tensorflow::DT_INT32 || value == static_cast<int32_t>(value);
}

bool New(Allocator* allocator, DataType type, const TensorShape& shape, Tensor* output) {
  Tensor made(allocator, type, shape);
  if (!made.IsInitialized()) return false;
  *output = std::move(made);
  return true;
}

// A vector of these values, or one value as a scalar.
bool NewIntegers(Allocator* allocator, DataType type, const int64_t* values, int n, bool is_scalar,
                 Tensor* output) {
  const TensorShape shape = is_scalar ? TensorShape({}) : TensorShape({n});
  if (!New(allocator, type, shape, output)) return false;
  for (int i = 0; i < n; ++i) SetAt(output, i, values[i]);
  return true;
}

class Shape final : public SmallOperation {
 public:
  bool Init(const Node& node) {
    return tensorflow::GetNodeAttr(node.attrs(), "out_type", &type_).ok();
  }

  bool Run(const TensorValue* inputs, int, Allocator* allocator, Tensor* output) const override {
    const TensorShape& shape = inputs[0].tensor->shape();
    int64_t dims[TensorShape::MaxDimensions()];
    for (int d = 0; d < shape.dims(); ++d) {
      dims[d] = shape.dim_size(d);
      if (!Fits(type_, dims[d])) return false;
    }
    return NewIntegers(allocator, type_, dims, shape.dims(), false, output);
  }

 private:
  DataType type_;
};

class Reshape final : public SmallOperation {
 public:
  bool Init(const Node&) { return true; }

  bool Run(const TensorValue* inputs, int, Allocator*, Tensor* output) const override {
    const Tensor& tensor = *inputs[0].tensor;
    const Tensor& wanted = *inputs[1].tensor;
    if (!IsSmallVector(wanted)) return false;
    int64_t known = 1;
    int unknown = -1;
    TensorShape shape;
    for (int d = 0; d < static_cast<int>(wanted.NumElements()); ++d) {
      int64_t size = At(wanted, d);
      if (size == -1 && unknown < 0) {
        unknown = d;
        size = 1;
      }
      if (size < 0 || __builtin_mul_overflow(known, size, &known)) return false;
      if (!shape.AddDimWithStatus(size).ok()) return false;
    }
    if (unknown >= 0) {
      if (known == 0 || tensor.NumElements() % known != 0) return false;
      shape.set_dim(unknown, tensor.NumElements() / known);
    }
    Tensor reshaped;
    if (!reshaped.CopyFrom(tensor, shape)) return false;
    *output = std::move(reshaped);
    return true;
  }
};

// Of a vector of integers: one of its elements, or some that lie side by side.
class StridedSlice final : public SmallOperation {
 public:
  bool Init(const Node& node) {
    int new_axis;
    int ellipsis;
    const auto attrs = node.attrs();
    return tensorflow::GetNodeAttr(attrs, "begin_mask", &begin_).ok() &&
           tensorflow::GetNodeAttr(attrs, "end_mask", &end_).ok() &&
           tensorflow::GetNodeAttr(attrs, "shrink_axis_mask", &shrinks_).ok() &&
           tensorflow::GetNodeAttr(attrs, "new_axis_mask", &new_axis).ok() &&
           tensorflow::GetNodeAttr(attrs, "ellipsis_mask", &ellipsis).ok() && new_axis == 0 &&
           ellipsis == 0 && (shrinks_ == 0 || (begin_ == 0 && end_ == 0));
  }

  bool Run(const TensorValue* inputs, int, Allocator* allocator, Tensor* output) const override {
    const Tensor& vector = *inputs[0].tensor;
    if (!IsSmallVector(vector)) return false;
    if (!AreOfOne(inputs + 1, 3)) return false;
    const int64_t n = vector.NumElements();
    if (At(*inputs[3].tensor, 0) != 1) return false;
    const auto place = [n](int64_t i) { return i < 0 ? i + n : i; };
    const int64_t begin = place(At(*inputs[1].tensor, 0));
    int64_t values[kMostElements];
    if ((shrinks_ & 1) != 0) {
      if (begin < 0 || begin >= n) return false;
      values[0] = At(vector, begin);
      return NewIntegers(allocator, vector.dtype(), values, 1, true, output);
    }
    const auto within = [n](int64_t i) { return std::clamp(i, int64_t{0}, n); };
    const int64_t first = (begin_ & 1) != 0 ? 0 : within(begin);
    const int64_t last = (end_ & 1) != 0 ? n : within(place(At(*inputs[2].tensor, 0)));
    int count = 0;
    for (int64_t i = first; i < last; ++i) values[count++] = At(vector, i);
    return NewIntegers(allocator, vector.dtype(), values, count, false, output);
  }

 private:
  int begin_;
  int end_;
  int shrinks_;
};

// Of a vector of integers.
class Slice final : public SmallOperation {
 public:
  bool Init(const Node&) { return true; }

  bool Run(const TensorValue* inputs, int, Allocator* allocator, Tensor* output) const override {
    const Tensor& vector = *inputs[0].tensor;
    if (!IsSmallVector(vector)) return false;
    if (!AreOfOne(inputs + 1, 2)) return false;
    const int64_t n = vector.NumElements();
    const int64_t begin = At(*inputs[1].tensor, 0);
    if (begin < 0 || begin > n) return false;
    const int64_t wanted = At(*inputs[2].tensor, 0);
    const int64_t size = wanted == -1 ? n - begin : wanted;
    if (size < 0 || size > n - begin) return false;
    int64_t values[kMostElements];
    for (int64_t i = 0; i < size; ++i) values[i] = At(vector, begin + i);
    return NewIntegers(allocator, vector.dtype(), values, static_cast<int>(size), false, output);
  }
};

// Of scalars that are integers.
class Pack final : public SmallOperation {
 public:
  bool Init(const Node& node) {
    int axis;
    return node.num_inputs() <= kMostElements &&
           tensorflow::GetNodeAttr(node.attrs(), "axis", &axis).ok() && (axis == 0 || axis == -1);
  }

  bool Run(const TensorValue* inputs, int n, Allocator* allocator, Tensor* output) const override {
    int64_t values[kMostElements];
    for (int i = 0; i < n; ++i) {
      const Tensor& scalar = *inputs[i].tensor;
      if (scalar.dims() != 0 || !IsInteger(scalar.dtype())) return false;
      values[i] = At(scalar, 0);
    }
    return NewIntegers(allocator, inputs[0].tensor->dtype(), values, n, false, output);
  }
};

// Of vectors of integers.
class Concat final : public SmallOperation {
 public:
  bool Init(const Node&) { return true; }

  bool Run(const TensorValue* inputs, int n, Allocator* allocator, Tensor* output) const override {
    const Tensor& axis = *inputs[n - 1].tensor;
    if (!AreSmall(axis) || axis.dims() != 0 || (At(axis, 0) != 0 && At(axis, 0) != -1)) {
      return false;
    }
    int64_t values[kMostElements];
    int count = 0;
    for (int i = 0; i + 1 < n; ++i) {
      const Tensor& vector = *inputs[i].tensor;
      if (!IsSmallVector(vector) || count + vector.NumElements() > kMostElements) return false;
      for (int64_t k = 0; k < vector.NumElements(); ++k) values[count++] = At(vector, k);
    }
    return NewIntegers(allocator, inputs[0].tensor->dtype(), values, count, false, output);
  }
};

// Between integers of 32 and 64 bits.
class Cast final : public SmallOperation {
 public:
  bool Init(const Node& node) {
    type_ = node.output_type(0);
    return IsInteger(type_) && IsInteger(node.input_type(0));
  }

  bool Run(const TensorValue* inputs, int, Allocator* allocator, Tensor* output) const override {
    const Tensor& from = *inputs[0].tensor;
    if (!AreSmall(from) || !New(allocator, type_, from.shape(), output)) return false;
    for (int64_t i = 0; i < from.NumElements(); ++i) SetAt(output, i, At(from, i));
    return true;
  }

 private:
  DataType type_;
};

// Of a vector of integers.
class Prod final : public SmallOperation {
 public:
  bool Init(const Node& node) {
    bool keeps;
    return tensorflow::GetNodeAttr(node.attrs(), "keep_dims", &keeps).ok() && !keeps;
  }

  bool Run(const TensorValue* inputs, int, Allocator* allocator, Tensor* output) const override {
    const Tensor& vector = *inputs[0].tensor;
    const Tensor& axis = *inputs[1].tensor;
    if (!IsSmallVector(vector) || !AreSmall(axis) || axis.NumElements() != 1 ||
        (At(axis, 0) != 0 && At(axis, 0) != -1)) {
      return false;
    }
    int64_t product = 1;
    for (int64_t i = 0; i < vector.NumElements(); ++i) {
      if (__builtin_mul_overflow(product, At(vector, i), &product)) return false;
    }
    return Fits(vector.dtype(), product) &&
           NewIntegers(allocator, vector.dtype(), &product, 1, true, output);
  }
};

// One element of a vector of integers, or some of them.
class Gather final : public SmallOperation {
 public:
  bool Init(const Node& node) {
    int batch_dims = 0;
    tensorflow::GetNodeAttr(node.attrs(), "batch_dims", &batch_dims).IgnoreError();
    return batch_dims == 0;
  }

  bool Run(const TensorValue* inputs, int n, Allocator* allocator, Tensor* output) const override {
    const Tensor& vector = *inputs[0].tensor;
    const Tensor& indices = *inputs[1].tensor;
    if (!IsSmallVector(vector) || !AreSmall(indices) || indices.dims() > 1) return false;
    if (n > 2 && (inputs[2].tensor->dims() != 0 || At(*inputs[2].tensor, 0) != 0)) return false;
    int64_t values[kMostElements];
    const int count = static_cast<int>(indices.NumElements());
    for (int i = 0; i < count; ++i) {
      const int64_t index = At(indices, i);
      if (index < 0 || index >= vector.NumElements()) return false;
      values[i] = At(vector, index);
    }
    return NewIntegers(allocator, vector.dtype(), values, count, indices.dims() == 0, output);
  }
};

template <typename Operation>
std::unique_ptr<SmallOperation> MakeOne(const Node& node) {
  auto operation = std::make_unique<Operation>();
  return operation->Init(node) ? std::move(operation) : nullptr;
}

}  // namespace

std::unique_ptr<SmallOperation> SmallOperation::Make(const Node& node) {
  using Maker = std::unique_ptr<SmallOperation> (*)(const Node&);
  static const auto* const makers = new std::unordered_map<std::string, Maker>{
      {"Cast", MakeOne<Cast>},       {"ConcatV2", MakeOne<Concat>},
      {"Gather", MakeOne<Gather>},   {"GatherV2", MakeOne<Gather>},
      {"Pack", MakeOne<Pack>},       {"Prod", MakeOne<Prod>},
      {"Reshape", MakeOne<Reshape>}, {"Shape", MakeOne<Shape>},
      {"Slice", MakeOne<Slice>},     {"StridedSlice", MakeOne<StridedSlice>}};
  const auto maker = makers->find(node.type_string());
  return maker == makers->end() ? nullptr : maker->second(node);
}

}  // namespace session_group
