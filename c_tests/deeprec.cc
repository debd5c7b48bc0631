// A program written against DeepRec's C++ API. Only its include is changed.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "session_group_tensorflow.hpp"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/cc/saved_model/reader.h"
#include "tensorflow/core/lib/core/errors.h"

using namespace tensorflow;

#define CHECK_THAT(condition)                                                   \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

namespace {

struct Request {
  std::vector<std::pair<std::string, Tensor>> inputs;
  std::vector<std::string> output_tensor_names = {"PartitionedCall:0", "PartitionedCall:1"};
};

Request Words(const std::string& words) {
  Tensor text(DT_STRING, TensorShape({1}));
  text.flat<tstring>()(0) = words;
  return {{{"serving_default_text:0", text}}};
}

// How DeepRec's users serve: a graph from a SavedModel, restored by the leader.
class Model {
 public:
  absl::Status Load(const std::string& dir, int session_num) {
    session_options_ = std::make_unique<SessionOptions>();
    TF_RETURN_IF_ERROR(ReadMetaGraphDefFromSavedModel(dir, {"serve"}, &meta_graph_def_));
    SessionGroup* session_group = nullptr;
    TF_RETURN_IF_ERROR(NewSessionGroup(*session_options_, &session_group, session_num));
    session_group_.reset(session_group);
    TF_RETURN_IF_ERROR(session_group_->Create(meta_graph_def_.graph_def()));
    return RestoreSession(RunOptions(), meta_graph_def_, dir, session_group_->GetSessionPtr(0));
  }

  absl::Status Predict(const Request& req, std::vector<Tensor>* outputs) {
    RunOptions run_options;
    RunMetadata run_metadata;
    return session_group_->Run(run_options, req.inputs, req.output_tensor_names, {}, outputs,
                               &run_metadata);
  }

  SessionGroup* group() { return session_group_.get(); }

 private:
  std::unique_ptr<SessionOptions> session_options_;
  MetaGraphDef meta_graph_def_;
  std::unique_ptr<SessionGroup> session_group_;
};

void ServesFromManyThreads(const std::string& dir) {
  Model model;
  TF_CHECK_OK(model.Load(dir, 3));
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) {
        std::vector<Tensor> outputs;
        TF_CHECK_OK(model.Predict(Words("to be or not to be"), &outputs));
        CHECK_THAT(outputs.size() == 2 && outputs[1].NumElements() == 4);
        ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_THAT(answered == 300);
}

void GivesItsSessions(const std::string& dir) {
  Model model;
  TF_CHECK_OK(model.Load(dir, 2));
  SessionGroup* group = model.group();
  CHECK_THAT(group->GetSessionNum() == 2);
  CHECK_THAT(group->GetLeaderSessions() == std::vector<Session*>{group->GetLeaderSession()});
  CHECK_THAT(group->GetLeaderSession() == group->GetSessionPtr(0)->get());
  CHECK_THAT(group->GetSession(3) == group->GetSessionPtr(1)->get());
  CHECK_THAT(group->GetSessionPtr(2) == nullptr && group->GetSessionPtr(-1) == nullptr);
  Request request = Words("one two two");
  for (int id = -1; id < 4; ++id) {
    std::vector<Tensor> outputs;
    TF_CHECK_OK(group->Run(request.inputs, request.output_tensor_names, {}, &outputs, id));
    CHECK_THAT(outputs[1].NumElements() == 2);
    TF_CHECK_OK(
        group->GetSession(id)->Run(request.inputs, request.output_tensor_names, {}, &outputs));
    CHECK_THAT(outputs[1].NumElements() == 2);
  }
  TF_CHECK_OK(group->Close());
  std::vector<Tensor> outputs;
  CHECK_THAT(absl::IsFailedPrecondition(
      group->Run(request.inputs, request.output_tensor_names, {}, &outputs)));
}

// Where DeepRec aborts, drops or reads out of bounds.
void RefusesWithAStatus() {
  SessionGroup* group = reinterpret_cast<SessionGroup*>(1);
  SessionGroupMetadata metadata;
  metadata.session_count = 2;
  metadata.cpusets = "0;nonsense";
  absl::Status status = NewSessionGroup(SessionOptions(), &group, metadata);
  CHECK_THAT(absl::IsInvalidArgument(status) && group == nullptr);
  CHECK_THAT(status.message().find("\"nonsense\"") != std::string::npos);
  metadata.cpusets = "0";
  CHECK_THAT(absl::IsInvalidArgument(NewSessionGroup(SessionOptions(), &group, metadata)));
  metadata.cpusets = "0;0&policy=thread";
  CHECK_THAT(absl::IsInvalidArgument(NewSessionGroup(SessionOptions(), &group, metadata)));
  metadata.cpusets = "0;0";
  TF_CHECK_OK(NewSessionGroup(SessionOptions(), &group, metadata));
  CHECK_THAT(group->GetSessionNum() == 2);
  std::vector<Tensor> outputs;
  CHECK_THAT(absl::IsFailedPrecondition(group->Run({}, {"x:0"}, {}, &outputs)));  // no graph yet
  delete group;
  metadata.gpu_ids = {0};
  // On a TensorFlow without GPUs; gpu.cc has some.
  CHECK_THAT(absl::IsFailedPrecondition(NewSessionGroup(SessionOptions(), &group, metadata)));
  CHECK_THAT(absl::IsInvalidArgument(NewSessionGroup(SessionOptions(), &group, 0)));
  CHECK_THAT(absl::IsInvalidArgument(NewSessionGroup(SessionOptions(), &group, -1)));
  SessionOptions remote;
  remote.target = "grpc://localhost:2222";
  CHECK_THAT(absl::IsInvalidArgument(NewSessionGroup(remote, &group)));
  CHECK_THAT(group == nullptr);
}

}  // namespace

int main() {
  const std::string dir = std::string(getenv("MODELS")) + "/strings";
  ServesFromManyThreads(dir);
  GivesItsSessions(dir);
  RefusesWithAStatus();
}
