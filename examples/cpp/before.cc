// Serves a SavedModel from many threads, with one session. `diff before.cc after.cc` shows what a
// session group changes.
//
//     before SAVED_MODEL
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/cc/saved_model/reader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/lib/core/errors.h"
#include "tensorflow/core/public/session.h"

namespace {

constexpr int kThreads = 8;
constexpr int kRequests = 200;

class Server {
 public:
  absl::Status Load(const std::string& dir) {
    tensorflow::MetaGraphDef model;
    TF_RETURN_IF_ERROR(tensorflow::ReadMetaGraphDefFromSavedModel(dir, {"serve"}, &model));
    tensorflow::Session* session = nullptr;
    TF_RETURN_IF_ERROR(tensorflow::NewSession(tensorflow::SessionOptions(), &session));
    session_.reset(session);
    TF_RETURN_IF_ERROR(session_->Create(model.graph_def()));
    return tensorflow::RestoreSession(tensorflow::RunOptions(), model, dir, &session_);
  }

  // The words of a text, and how often each occurs.
  absl::Status CountWords(const std::string& text, std::vector<tensorflow::Tensor>* outputs) const {
    tensorflow::Tensor input(tensorflow::DT_STRING, tensorflow::TensorShape({1}));
    input.flat<tensorflow::tstring>()(0) = text;
    return session_->Run({{"serving_default_text:0", input}},
                         {"PartitionedCall:0", "PartitionedCall:1"}, {}, outputs);
  }

 private:
  std::unique_ptr<tensorflow::Session> session_;
};

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s SAVED_MODEL\n", argv[0]);
    return 2;
  }
  Server server;
  const absl::Status loaded = server.Load(argv[1]);
  if (!loaded.ok()) return Fail(loaded);

  std::atomic<int> words{0};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < kRequests; ++j) {
        std::vector<tensorflow::Tensor> outputs;
        const absl::Status ran = server.CountWords("to be or not to be", &outputs);
        if (!ran.ok()) {
          failures += Fail(ran);
        } else {
          words += static_cast<int>(outputs[1].NumElements());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("%d words\n", words.load());
  return failures == 0 ? 0 : 1;
}
