// What a request costs beside what its graph computes: a graph that computes next to nothing,
// through TensorFlow's own Run() and RunCallable() on its single-threaded executor, and through
// each way into a group, by turns.
//
//     overhead GRAPH_DEF            nanoseconds
//     overhead GRAPH_DEF callable   runs the group's callable alone, to count instructions
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "session_group.h"
#include "tensorflow/core/public/session.h"

namespace {

constexpr int kRounds = 15;
constexpr int kRuns = 50000;

void Check(TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  std::fprintf(stderr, "%s\n", TF_Message(status));
  std::exit(1);
}

template <typename Run>
double Nanoseconds(Run run) {
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) run();
  const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begun;
  return taken.count() / kRuns;
}

void Print(const char* name, std::vector<double> ns) {
  std::sort(ns.begin(), ns.end());
  std::printf("%-44s %6.0f ns  (%.0f to %.0f)\n", name, ns[ns.size() / 2], ns.front(), ns.back());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: overhead GRAPH_DEF [callable]\n");
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::string graph_def{std::istreambuf_iterator<char>(file), {}};

  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 2);
  SessionGroupOptions_SetPolicy(options, "thread", status);
  SessionGroupOptions_SetExecution(options, "caller", status);
  SessionGroup* group = NewSessionGroupWithOptions(session_options, options, status);
  Check(status);
  SessionGroup_Create(group, graph_def.data(), graph_def.size(), status);
  Check(status);
  const char* const feed[] = {"x:0"};
  const char* const fetch[] = {"y:0"};
  SessionGroupCallable* callable =
      SessionGroup_MakeCallable(group, feed, 1, fetch, 1, nullptr, 0, status);
  Check(status);
  const int64_t dims[] = {1};
  TF_Tensor* x = TF_AllocateTensor(TF_FLOAT, dims, 1, sizeof(float));
  *static_cast<float*>(TF_TensorData(x)) = 1;

  const auto group_callable = [&] {
    TF_Tensor* y = nullptr;
    SessionGroupCallable_Run(callable, &x, 1, &y, 1, status);
    Check(status);
    TF_DeleteTensor(y);
  };
  if (argc > 2) {
    for (int i = 0; i < 1000; ++i) group_callable();
    return 0;
  }
  const auto group_run = [&] {
    TF_Tensor* y = nullptr;
    SessionGroup_Run(group, nullptr, feed, &x, 1, fetch, &y, 1, nullptr, 0, nullptr, status);
    Check(status);
    TF_DeleteTensor(y);
  };

  tensorflow::SessionOptions theirs;
  theirs.config.set_intra_op_parallelism_threads(1);
  theirs.config.set_inter_op_parallelism_threads(1);
  theirs.config.mutable_experimental()->set_executor_type("SINGLE_THREADED_EXECUTOR");
  const std::unique_ptr<tensorflow::Session> session(tensorflow::NewSession(theirs));
  tensorflow::GraphDef graph;
  graph.ParseFromString(graph_def);
  TF_CHECK_OK(session->Create(graph));
  tensorflow::CallableOptions callable_options;
  callable_options.add_feed("x:0");
  callable_options.add_fetch("y:0");
  callable_options.mutable_run_options()->set_inter_op_thread_pool(-1);
  tensorflow::Session::CallableHandle handle;
  TF_CHECK_OK(session->MakeCallable(callable_options, &handle));
  tensorflow::Tensor input(tensorflow::DT_FLOAT, tensorflow::TensorShape({1}));
  input.flat<float>()(0) = 1;
  const std::vector<tensorflow::Tensor> inputs{input};
  const auto run_callable = [&] {
    std::vector<tensorflow::Tensor> outputs;
    TF_CHECK_OK(session->RunCallable(handle, inputs, &outputs, nullptr));
  };

  const std::vector<std::pair<std::string, tensorflow::Tensor>> named_inputs{{"x:0", input}};
  const std::vector<std::string> output_names{"y:0"};
  const auto run_on = [&](tensorflow::Session* on) {
    std::vector<tensorflow::Tensor> outputs;
    tensorflow::RunOptions options;
    options.set_inter_op_thread_pool(-1);
    TF_CHECK_OK(on->Run(options, named_inputs, output_names, {}, &outputs, nullptr));
  };
  const auto run = [&] { run_on(session.get()); };

  const auto as_session = [&](int32_t id) {
    void* made = SessionGroup_NewCppSession(group, id, status);
    Check(status);
    return std::unique_ptr<tensorflow::Session>(static_cast<tensorflow::Session*>(made));
  };
  const std::unique_ptr<tensorflow::Session> all = as_session(-1);
  const std::unique_ptr<tensorflow::Session> first = as_session(0);
  const auto run_all = [&] { run_on(all.get()); };
  const auto run_first = [&] { run_on(first.get()); };
  tensorflow::Session::CallableHandle all_handle;
  callable_options.clear_run_options();
  TF_CHECK_OK(all->MakeCallable(callable_options, &all_handle));
  const auto run_callable_of_all = [&] {
    std::vector<tensorflow::Tensor> outputs;
    TF_CHECK_OK(all->RunCallable(all_handle, inputs, &outputs, nullptr));
  };

  const std::pair<const char*, std::function<double()>> contenders[] = {
      {"TensorFlow's Run, one thread", [&] { return Nanoseconds(run); }},
      {"TensorFlow's RunCallable, one thread", [&] { return Nanoseconds(run_callable); }},
      {"SessionGroup_Run", [&] { return Nanoseconds(group_run); }},
      {"SessionGroupCallable_Run", [&] { return Nanoseconds(group_callable); }},
      {"the group as a Session: Run", [&] { return Nanoseconds(run_all); }},
      {"the group as a Session: RunCallable", [&] { return Nanoseconds(run_callable_of_all); }},
      {"one of its sessions: Run", [&] { return Nanoseconds(run_first); }},
  };
  std::vector<double> times[std::size(contenders)];
  for (int round = 0; round <= kRounds; ++round) {
    for (size_t i = 0; i < std::size(contenders); ++i) {
      const double ns = contenders[i].second();
      if (round > 0) times[i].push_back(ns);  // the first warms up
    }
  }
  for (size_t i = 0; i < std::size(contenders); ++i) Print(contenders[i].first, times[i]);

  SessionGroupCallable_Delete(callable);
  SessionGroup_Delete(group);
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteTensor(x);
  TF_DeleteStatus(status);
}
