// Tensors as JSON: nested arrays, one level a dimension, as in TensorFlow Serving's REST API.
#ifndef EXAMPLES_HTTP_JSON_TENSOR_H_
#define EXAMPLES_HTTP_JSON_TENSOR_H_

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "tensorflow/core/framework/tensor.h"

namespace json_tensor {

using Json = nlohmann::json;

// What is wrong with a client's JSON.
struct Invalid : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr size_t kMaxRank = 8;

// The elements in row-major order. The first ones tell the shape, which all others must have.
inline void Flatten(const Json& value, size_t rank, std::vector<int64_t>* shape,
                    std::vector<const Json*>* elements) {
  if (!value.is_array()) {
    if (rank != shape->size()) throw Invalid("rows differ in depth");
    elements->push_back(&value);
    return;
  }
  const auto size = static_cast<int64_t>(value.size());
  if (rank >= kMaxRank) throw Invalid("arrays are nested too deep");
  if (rank == shape->size() && elements->empty()) shape->push_back(size);
  if (rank >= shape->size() || (*shape)[rank] != size) throw Invalid("rows differ in size");
  for (const Json& row : value) Flatten(row, rank + 1, shape, elements);
}

// The value without loss, but for a number's least significant bits where floats are asked for.
template <typename T>
T Element(const Json& json) {
  if constexpr (std::is_same_v<T, tensorflow::tstring>) {
    if (json.is_string()) return json.get_ref<const std::string&>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (json.is_number() && std::abs(json.get<double>()) <= std::numeric_limits<T>::max()) {
      return json.get<T>();
    }
  } else if (json.is_number_unsigned()
                 ? json.get<uint64_t>() <= uint64_t{std::numeric_limits<T>::max()}
                 : json.is_number_integer() &&
                       json.get<int64_t>() >= std::numeric_limits<T>::min()) {
    return json.get<T>();
  }
  throw Invalid(json.dump() + " is no " +
                tensorflow::DataTypeString(tensorflow::DataTypeToEnum<T>::v()));
}

template <typename T>
tensorflow::Tensor Fill(const std::vector<int64_t>& shape,
                        const std::vector<const Json*>& elements) {
  tensorflow::Tensor tensor(tensorflow::DataTypeToEnum<T>::v(), tensorflow::TensorShape(shape));
  T* out = tensor.flat<T>().data();
  for (const Json* element : elements) *out++ = Element<T>(*element);
  return tensor;
}

// A tensor of that type. Throws Invalid.
inline tensorflow::Tensor FromJson(const Json& json, tensorflow::DataType type) {
  std::vector<int64_t> shape;
  std::vector<const Json*> elements;
  Flatten(json, 0, &shape, &elements);
  if (type == tensorflow::DT_FLOAT) return Fill<float>(shape, elements);
  if (type == tensorflow::DT_DOUBLE) return Fill<double>(shape, elements);
  if (type == tensorflow::DT_INT32) return Fill<int32_t>(shape, elements);
  if (type == tensorflow::DT_INT64) return Fill<int64_t>(shape, elements);
  if (type == tensorflow::DT_STRING) return Fill<tensorflow::tstring>(shape, elements);
  throw Invalid(tensorflow::DataTypeString(type) + " is not understood by this server");
}

template <typename T>
Json Nest(const tensorflow::Tensor& tensor, const T** next, int dim = 0) {
  if (dim == tensor.dims()) {
    if constexpr (std::is_same_v<T, tensorflow::tstring>) return std::string(*(*next)++);
    return *(*next)++;
  }
  Json rows = Json::array();
  for (int64_t i = 0; i < tensor.dim_size(dim); ++i) rows.push_back(Nest(tensor, next, dim + 1));
  return rows;
}

template <typename T>
Json Nest(const tensorflow::Tensor& tensor) {
  const T* next = tensor.flat<T>().data();
  return Nest(tensor, &next);
}

// Numbers that are not finite become null.
inline Json ToJson(const tensorflow::Tensor& tensor) {
  if (tensor.dtype() == tensorflow::DT_FLOAT) return Nest<float>(tensor);
  if (tensor.dtype() == tensorflow::DT_DOUBLE) return Nest<double>(tensor);
  if (tensor.dtype() == tensorflow::DT_INT32) return Nest<int32_t>(tensor);
  if (tensor.dtype() == tensorflow::DT_INT64) return Nest<int64_t>(tensor);
  if (tensor.dtype() == tensorflow::DT_STRING) return Nest<tensorflow::tstring>(tensor);
  throw std::runtime_error(tensorflow::DataTypeString(tensor.dtype()) + " is not understood");
}

}  // namespace json_tensor

#endif  // EXAMPLES_HTTP_JSON_TENSOR_H_
