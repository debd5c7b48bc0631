// A request of TensorFlow Serving's REST API, in its columnar form, on a SavedModel.
#ifndef EXAMPLES_HTTP_PREDICT_H_
#define EXAMPLES_HTTP_PREDICT_H_

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "json_tensor.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor_shape.h"

namespace predict {

using json_tensor::Invalid;
using json_tensor::Json;

// What TensorFlow answered instead of outputs.
struct Failed : std::runtime_error {
  explicit Failed(const absl::Status& status)
      : std::runtime_error(status.ToString()), code(status.code()) {}
  absl::StatusCode code;
};

inline tensorflow::Tensor Input(const Json& value, const tensorflow::TensorInfo& info) {
  tensorflow::Tensor tensor = json_tensor::FromJson(value, info.dtype());
  const tensorflow::PartialTensorShape shape(info.tensor_shape());
  if (!shape.IsCompatibleWith(tensor.shape())) {
    throw Invalid("the shape is " + tensor.shape().DebugString() + ", not " + shape.DebugString());
  }
  return tensor;
}

// {"inputs": {NAME: array, ...}, "signature_name": NAME} gives {"outputs": {NAME: array, ...}}.
// Throws Invalid, Failed, and what the JSON library throws where fields are of other types.
inline Json Predict(const tensorflow::SavedModelBundleInterface& model, const Json& request) {
  if (!request.is_object()) throw Invalid("the body is no JSON object");
  const std::string name = request.value("signature_name", "serving_default");
  const auto signature = model.GetSignatures().find(name);
  if (signature == model.GetSignatures().end()) throw Invalid("no signature \"" + name + '"');
  const auto& [inputs, outputs] = std::tie(signature->second.inputs(), signature->second.outputs());

  const Json& values = request.at("inputs");
  if (!values.is_object()) throw Invalid("\"inputs\" is no object");
  std::vector<std::pair<std::string, tensorflow::Tensor>> feeds;
  for (const auto& [key, value] : values.items()) {
    const auto input = inputs.find(key);
    if (input == inputs.end()) throw Invalid("no input \"" + key + '"');
    try {
      feeds.emplace_back(input->second.name(), Input(value, input->second));
    } catch (const Invalid& e) {
      throw Invalid("input \"" + key + "\": " + e.what());
    }
  }
  for (const auto& [key, info] : inputs) {
    if (!values.contains(key)) throw Invalid("input \"" + key + "\" is missing");
  }

  std::vector<std::string> keys, fetches;
  for (const auto& [key, info] : outputs) {
    keys.push_back(key);
    fetches.push_back(info.name());
  }
  std::vector<tensorflow::Tensor> fetched;
  const absl::Status ran = model.GetSession()->Run(feeds, fetches, {}, &fetched);
  if (!ran.ok()) throw Failed(ran);
  Json answer;
  for (size_t i = 0; i < keys.size(); ++i) answer[keys[i]] = json_tensor::ToJson(fetched[i]);
  return {{"outputs", answer}};
}

}  // namespace predict

#endif  // EXAMPLES_HTTP_PREDICT_H_
