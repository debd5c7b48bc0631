// Requests of TensorFlow's C++ API, which Rust runs as a program or on a TensorFlow session.
#ifndef SESSION_GROUP_REQUESTS_H_
#define SESSION_GROUP_REQUESTS_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "abi/handles.h"
#include "abi/shim.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/platform/threadpool_options.h"
#include "tensorflow/core/protobuf/config.pb.h"

// The inputs and outputs of a request.
struct sg_tensors {
  // As many as there are fetches.
  std::vector<tensorflow::Tensor>* fetched;
  size_t num_fetches;
  tensorflow::RunMetadata* metadata;  // may be NULL

  virtual ~sg_tensors() = default;
  virtual size_t num_feeds() const = 0;
  virtual const tensorflow::Tensor* feed(size_t i) const = 0;
  virtual absl::Status RunOn(sg_session* session, const tensorflow::RunOptions& options) = 0;
};

namespace session_group {

using NamedTensors = std::vector<std::pair<std::string, tensorflow::Tensor>>;

// A call of Session::Run().
struct NamedCall final : sg_tensors {
  NamedCall(const NamedTensors& inputs, const std::vector<std::string>& outputs,
            const std::vector<std::string>& targets, std::vector<tensorflow::Tensor>* fetched,
            tensorflow::RunMetadata* metadata)
      : inputs(inputs), outputs(outputs), targets(targets) {
    this->fetched = fetched;
    this->metadata = metadata;
    num_fetches = outputs.size();
  }

  size_t num_feeds() const override { return inputs.size(); }
  const tensorflow::Tensor* feed(size_t i) const override { return &inputs[i].second; }
  absl::Status RunOn(sg_session* session, const tensorflow::RunOptions& options) override {
    tensorflow::RunMetadata dropped;
    return session->Compute([&] {
      return session->session->Run(options, inputs, outputs, targets, fetched,
                                   metadata != nullptr ? metadata : &dropped);
    });
  }

  const NamedTensors& inputs;
  const std::vector<std::string>& outputs;
  const std::vector<std::string>& targets;
};

// A call of Session::RunCallable().
struct CallableCall final : sg_tensors {
  CallableCall(const tensorflow::CallableOptions& options,
               const std::vector<tensorflow::Tensor>& inputs,
               std::vector<tensorflow::Tensor>* fetched, tensorflow::RunMetadata* metadata)
      : options(options), inputs(inputs) {
    this->fetched = fetched;
    this->metadata = metadata;
    num_fetches = options.fetch_size();
  }

  size_t num_feeds() const override { return inputs.size(); }
  const tensorflow::Tensor* feed(size_t i) const override { return &inputs[i]; }
  absl::Status RunOn(sg_session* session, const tensorflow::RunOptions& run_options) override {
    return RunOn(session, run_options, tensorflow::thread::ThreadPoolOptions());
  }
  absl::Status RunOn(sg_session* session, const tensorflow::RunOptions& run_options,
                     const tensorflow::thread::ThreadPoolOptions& pools) {
    NamedTensors named;
    named.reserve(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) named.emplace_back(options.feed(i), inputs[i]);
    const std::vector<std::string> fetches(options.fetch().begin(), options.fetch().end());
    const std::vector<std::string> targets(options.target().begin(), options.target().end());
    tensorflow::RunMetadata dropped;
    return session->Compute([&] {
      return session->session->Run(run_options, named, fetches, targets, fetched,
                                   metadata != nullptr ? metadata : &dropped, pools);
    });
  }

  const tensorflow::CallableOptions& options;
  const std::vector<tensorflow::Tensor>& inputs;
};

}  // namespace session_group

#endif  // SESSION_GROUP_REQUESTS_H_
