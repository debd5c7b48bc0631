// What TensorFlow Serving is made of, for comparison: gRPC's C++ server with its thread pool,
// protobuf, and one stock session that is run by names.
//
//     grpc_cpp TENSORFLOW PORT SAVED_MODEL [inline]
//
// TENSORFLOW is libtensorflow_cc. With `inline` the session computes on the thread that serves the
// request. Knows the inputs and the output of the tests' Wide & Deep.
#include <dlfcn.h>
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tensorflow/c/c_api.h"
#include "tensorflow_serving/apis/prediction_service.grpc.pb.h"

namespace {

// TensorFlow brings a protobuf of its own, so it is opened with its symbols to itself, and not
// linked.
void* library = nullptr;

template <typename Function>
Function* Find(const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) {
    std::fprintf(stderr, "error: %s\n", dlerror());
    std::exit(1);
  }
  return reinterpret_cast<Function*>(found);
}

#define TF(name)                                            \
  (*[] {                                                    \
    static auto* const found = Find<decltype(name)>(#name); \
    return found;                                           \
  }())

struct Deleter {
  void operator()(TF_Tensor* tensor) const { TF(TF_DeleteTensor)(tensor); }
  void operator()(TF_Status* status) const { TF(TF_DeleteStatus)(status); }
};
using Tensor = std::unique_ptr<TF_Tensor, Deleter>;
using Status = std::unique_ptr<TF_Status, Deleter>;

Tensor FromProto(const tensorflow::TensorProto& proto) {
  std::vector<int64_t> dims;
  int64_t count = 1;
  for (const auto& dim : proto.tensor_shape().dim()) {
    dims.push_back(dim.size());
    count *= dim.size();
  }
  const auto type = static_cast<TF_DataType>(proto.dtype());
  const size_t size = count * TF(TF_DataTypeSize)(type);
  const size_t allocated = type == TF_STRING ? count * sizeof(TF_TString) : size;
  Tensor tensor(TF(TF_AllocateTensor)(type, dims.data(), static_cast<int>(dims.size()), allocated));
  void* data = TF(TF_TensorData)(tensor.get());
  if (type == TF_STRING) {
    auto* strings = static_cast<TF_TString*>(data);
    for (int64_t i = 0; i < count; ++i) {
      const std::string& value = proto.string_val(static_cast<int>(i));
      TF(TF_StringInit)(&strings[i]);
      TF(TF_StringCopy)(&strings[i], value.data(), value.size());
    }
  } else {
    std::memcpy(data, proto.tensor_content().data(), std::min(size, proto.tensor_content().size()));
  }
  return tensor;
}

class Service : public tensorflow::serving::PredictionService::Service {
 public:
  Service(TF_Session* session, TF_Graph* graph, TF_Buffer* run_options)
      : session_(session), graph_(graph), run_options_(run_options) {}

  grpc::Status Predict(grpc::ServerContext*, const tensorflow::serving::PredictRequest* request,
                       tensorflow::serving::PredictResponse* response) override {
    std::vector<TF_Output> inputs;
    std::vector<Tensor> tensors;
    std::vector<TF_Tensor*> values;
    for (const auto& [alias, proto] : request->inputs()) {
      TF_Operation* input =
          TF(TF_GraphOperationByName)(graph_, ("serving_default_" + alias).c_str());
      if (input == nullptr) return {grpc::StatusCode::INVALID_ARGUMENT, "no input " + alias};
      inputs.push_back({input, 0});
      tensors.push_back(FromProto(proto));
      values.push_back(tensors.back().get());
    }
    const TF_Output output = {TF(TF_GraphOperationByName)(graph_, "StatefulPartitionedCall"), 0};
    TF_Tensor* result = nullptr;
    Status status(TF(TF_NewStatus)());
    TF(TF_SessionRun)(session_, run_options_, inputs.data(), values.data(),
                      static_cast<int>(inputs.size()), &output, &result, 1, nullptr, 0, nullptr,
                      status.get());
    if (TF(TF_GetCode)(status.get()) != TF_OK) {
      return {grpc::StatusCode::INTERNAL, TF(TF_Message)(status.get())};
    }
    const Tensor score(result);
    tensorflow::TensorProto& proto = (*response->mutable_outputs())["score"];
    proto.set_dtype(tensorflow::DT_FLOAT);
    for (int i = 0; i < TF(TF_NumDims)(result); ++i) {
      proto.mutable_tensor_shape()->add_dim()->set_size(TF(TF_Dim)(result, i));
    }
    const auto* scores = static_cast<const float*>(TF(TF_TensorData)(result));
    proto.mutable_float_val()->Add(scores, scores + TF(TF_TensorByteSize)(result) / sizeof(float));
    *response->mutable_model_spec() = request->model_spec();
    return grpc::Status::OK;
  }

 private:
  TF_Session* const session_;
  TF_Graph* const graph_;
  TF_Buffer* const run_options_;
};

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::fprintf(stderr, "usage: %s TENSORFLOW PORT SAVED_MODEL [inline]\n", arguments[0]);
    return 1;
  }
  library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (library == nullptr) {
    std::fprintf(stderr, "error: %s\n", dlerror());
    return 1;
  }
  Status status(TF(TF_NewStatus)());
  const char* tag = "serve";
  TF_Graph* graph = TF(TF_NewGraph)();
  TF_Session* session = TF(TF_LoadSessionFromSavedModel)(
      TF(TF_NewSessionOptions)(), nullptr, arguments[3], &tag, 1, graph, nullptr, status.get());
  if (TF(TF_GetCode)(status.get()) != TF_OK) {
    std::fprintf(stderr, "error: %s\n", TF(TF_Message)(status.get()));
    return 1;
  }
  // RunOptions with inter_op_thread_pool -1: the calling thread.
  constexpr char kInline[] = "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
  const bool is_inline = count > 4;
  TF_Buffer* options =
      is_inline ? TF(TF_NewBufferFromString)(kInline, sizeof kInline - 1) : nullptr;
  Service service(session, graph, options);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + arguments[2],
                           grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  builder.BuildAndStart()->Wait();
}
