// Sends requests to a model from several threads at a time, and tells the plug-in (lines.c) when
// all are warm and when they end.
//
//     drive FACE TARGET THREADS REQUESTS MODEL FETCH FEED...
//
// FACE: names, callable (the C ABI), cpp, cpp_callable (tensorflow::Session), cpp_inline (likewise,
// with inter_op_thread_pool -1). TARGET: a session target, such as session_group://4?policy=thread,
// or "stock", for the faces of C++. REQUESTS: of each thread. MODEL: a SavedModel or a GraphDef.
// FEED: NAME=TYPE,DIM,..., as x:0=float,1,13. With PIN in the environment, thread i runs on CPU i.
// MAPS names the file that gets a copy of /proc/self/maps.
#include <sched.h>
#include <session_group.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensorflow/c/tf_tensor_internal.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/public/session.h"

namespace {

using tensorflow::Tensor;
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;
using Status = std::unique_ptr<TF_Status, decltype(&TF_DeleteStatus)>;

constexpr int kWarmUp = 50;

void Check(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), status.ToString().c_str());
  std::exit(1);
}

void Check(const TF_Status* status, const std::string& what) {
  if (TF_GetCode(status) == TF_OK) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), TF_Message(status));
  std::exit(1);
}

struct Feed {
  std::string name;
  tensorflow::DataType type;
  tensorflow::TensorShape shape;

  explicit Feed(const std::string& text) {
    const size_t equals = text.find('=');
    size_t comma = text.find(',', equals);
    name = text.substr(0, equals);
    if (!tensorflow::DataTypeFromString(text.substr(equals + 1, comma - equals - 1), &type)) {
      std::fprintf(stderr, "%s has no type\n", text.c_str());
      std::exit(2);
    }
    while (comma != std::string::npos) {
      shape.AddDim(std::atoll(text.c_str() + comma + 1));
      comma = text.find(',', comma + 1);
    }
  }

  Tensor Make(std::minstd_rand* random) const {
    Tensor tensor(type, shape);
    for (int64_t i = 0; i < tensor.NumElements(); ++i) {
      if (type == tensorflow::DT_FLOAT) tensor.flat<float>()(i) = (*random)() / 2e9f;
      if (type == tensorflow::DT_INT64) tensor.flat<int64_t>()(i) = (*random)() % 1000;
      if (type == tensorflow::DT_INT32) tensor.flat<int32_t>()(i) = (*random)() % 1000;
      if (type == tensorflow::DT_STRING) tensor.flat<tensorflow::tstring>()(i) = "de";
    }
    return tensor;
  }
};

struct Model {
  std::string path;
  std::string fetch;
  std::vector<Feed> feeds;
};

// It stays until the process ends.
tensorflow::Session* Load(const Model& model, const std::string& target) {
  tensorflow::SessionOptions options;
  if (target != "stock") options.target = target;
  static tensorflow::SavedModelBundle bundle;
  if (tensorflow::Env::Default()->IsDirectory(model.path).ok()) {
    Check(tensorflow::LoadSavedModel(options, {}, model.path, {"serve"}, &bundle), "load");
  } else {
    tensorflow::GraphDef graph;
    Check(tensorflow::ReadBinaryProto(tensorflow::Env::Default(), model.path, &graph), "read");
    bundle.session.reset(tensorflow::NewSession(options));
    Check(bundle.session->Create(graph), "create");
  }
  return bundle.session.get();
}

// Sends a request with these inputs, and drops its outputs.
using Send = std::function<void(const std::vector<Tensor>& inputs)>;

Send ByCpp(const Model& model, tensorflow::Session* session, bool is_inline) {
  tensorflow::RunOptions options;
  if (is_inline) options.set_inter_op_thread_pool(-1);
  return [=](const std::vector<Tensor>& inputs) {
    std::vector<std::pair<std::string, Tensor>> named;
    for (size_t i = 0; i < inputs.size(); ++i) named.emplace_back(model.feeds[i].name, inputs[i]);
    std::vector<Tensor> outputs;
    Check(session->Run(options, named, {model.fetch}, {}, &outputs, nullptr), "run");
  };
}

Send ByCppCallable(const Model& model, tensorflow::Session* session) {
  tensorflow::CallableOptions callable;
  for (const Feed& feed : model.feeds) callable.add_feed(feed.name);
  callable.add_fetch(model.fetch);
  tensorflow::Session::CallableHandle handle;
  Check(session->MakeCallable(callable, &handle), "make a callable");
  return [=](const std::vector<Tensor>& inputs) {
    std::vector<Tensor> outputs;
    Check(session->RunCallable(handle, inputs, &outputs, nullptr), "run");
  };
}

Send ByC(const Model& model, tensorflow::Session* session, bool by_callable) {
  const Status status(TF_NewStatus(), TF_DeleteStatus);
  SessionGroup* group = SessionGroup_FromCppSession(session, status.get());
  Check(status.get(), "the group");
  static std::vector<const char*> names;
  for (const Feed& feed : model.feeds) names.push_back(feed.name.c_str());
  const auto num_inputs = static_cast<int32_t>(names.size());
  const char* const fetch = model.fetch.c_str();
  SessionGroupCallable* callable = nullptr;
  if (by_callable) {
    callable = SessionGroup_MakeCallable(group, names.data(), num_inputs, &fetch, 1, nullptr, 0,
                                         status.get());
    Check(status.get(), "make a callable");
  }
  return [=](const std::vector<Tensor>& inputs) {
    const Status status(TF_NewStatus(), TF_DeleteStatus);
    std::vector<TF_Tensor*> tensors;
    for (const Tensor& input : inputs) {
      absl::Status made;
      tensors.push_back(tensorflow::TF_TensorFromTensor(input, &made));
      Check(made, "an input");
    }
    TF_Tensor* output = nullptr;
    if (callable != nullptr) {
      SessionGroupCallable_Run(callable, tensors.data(), num_inputs, &output, 1, status.get());
    } else {
      SessionGroup_Run(group, nullptr, names.data(), tensors.data(), num_inputs, &fetch, &output, 1,
                       nullptr, 0, nullptr, status.get());
    }
    Check(status.get(), "run");
    TF_DeleteTensor(output);
    for (TF_Tensor* tensor : tensors) TF_DeleteTensor(tensor);
  };
}

Send MakeSend(const std::string& face, const Model& model, tensorflow::Session* session) {
  if (face == "names" || face == "callable") return ByC(model, session, face == "callable");
  if (face == "cpp_callable") return ByCppCallable(model, session);
  return ByCpp(model, session, face == "cpp_inline");
}

void CopyMaps() {
  const char* const to = std::getenv("MAPS");
  if (to != nullptr) std::ofstream(to) << std::ifstream("/proc/self/maps").rdbuf();
}

void Pin(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    std::fprintf(stderr, "usage: drive FACE TARGET THREADS REQUESTS MODEL FETCH FEED...\n");
    return 2;
  }
  const int num_threads = std::atoi(argv[3]);
  const int requests = std::atoi(argv[4]);
  static Model model{argv[5], argv[6], {}};
  for (int i = 7; i < argc; ++i) model.feeds.emplace_back(argv[i]);
  const Send send = MakeSend(argv[1], model, Load(model, argv[2]));

  std::barrier all(num_threads);
  const auto client = [&](int number) {
    if (std::getenv("PIN") != nullptr) Pin(number);
    std::minstd_rand random(number + 1);
    const auto requests_of_random_inputs = [&](int n) {
      for (int i = 0; i < n; ++i) {
        std::vector<Tensor> inputs;
        for (const Feed& feed : model.feeds) inputs.push_back(feed.Make(&random));
        send(inputs);
      }
    };
    requests_of_random_inputs(kWarmUp);
    all.arrive_and_wait();
    if (number == 0) {
      CopyMaps();
      syscall(600001);
    }
    all.arrive_and_wait();
    requests_of_random_inputs(requests);
    all.arrive_and_wait();
    if (number == 0) syscall(600002);
    all.arrive_and_wait();
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < num_threads; ++i) threads.emplace_back(client, i);
  for (std::thread& thread : threads) thread.join();
  // Without the destructors of TensorFlow, which take long under an emulator.
  _exit(0);
}
