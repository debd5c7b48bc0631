// session_group.hpp: owners, results, a policy as a lambda.
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "session_group.hpp"
#include "test.h"

namespace sg = session_group;

static sg::Tensor Words() {
  const char* const words[] = {"to be or not to be"};
  return sg::Tensor(strings(words, 1));
}

static sg::Group Load(const sg::Options& options) {
  auto group = sg::Group::Load(sg::NewSessionOptions(), model("strings"), {"serve"}, options);
  CHECK(group.ok());
  return *std::move(group);
}

static void RunsFromManyThreads() {
  sg::Options options;
  options.set_session_num(4);
  sg::Group group = Load(options);
  CHECK(group.session_num() == 4);
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      sg::Tensor text = Words();
      for (int j = 0; j < 50; ++j) {
        auto outputs = group.Run({{"serving_default_text:0", text.get()}},
                                 {"PartitionedCall:0", "PartitionedCall:1"});
        CHECK(outputs.ok());
        CHECK(outputs->size() == 2);
        CHECK(TF_Dim((*outputs)[1].get(), 0) == 4);
        ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(answered == 400);
  sg::Group moved = std::move(group);
  CHECK(moved.session_num() == 4);
  CHECK(moved.ListDevices().ok());
  CHECK(moved.Close().ok());
  auto late = moved.Run({}, {"PartitionedCall:0"});
  CHECK(!late && late.status().code() == TF_FAILED_PRECONDITION);
}

static void ErrorsCarryTheirMessages() {
  sg::Options options;
  const sg::Status status = options.set_cpuset("0;x");
  CHECK(status.code() == TF_INVALID_ARGUMENT);
  CHECK(status.message().find("\"x\" is not a CPU number") != std::string::npos);
  CHECK(!options.set_policy("best").ok());
  CHECK(options.set_execution("worker").ok());
  CHECK(!options.set_gpu_ids({0, 0}).ok() && options.set_gpu_ids({}).ok());
  options.set_multi_stream(false);
  options.set_session_num(0);
  auto group = sg::Group::New(sg::NewSessionOptions(), options);
  CHECK(!group.ok());
  CHECK(group.status().message().find("session_num is 0") != std::string::npos);
}

static void ALambdaIsAPolicy() {
  auto asked = std::make_shared<std::atomic<int>>(0);
  {
    sg::Options options;
    options.set_session_num(2);
    options.set_policy_fn([asked](const SessionGroupLoad& load) {
      ++*asked;
      return load.session_num - 1;
    });
    CHECK(asked.use_count() == 2);
    sg::Group group = Load(options);
    sg::Tensor text = Words();
    CHECK(group.Run({{"serving_default_text", text.get()}}, {"PartitionedCall:1"}).ok());
  }
  CHECK(*asked == 1);
  CHECK(asked.use_count() == 1);
}

static void APolicyThatThrowsFailsItsRequest() {
  sg::Options options;
  options.set_session_num(2);
  options.set_policy_fn(
      [](const SessionGroupLoad&) -> int32_t { throw std::runtime_error("on purpose"); });
  sg::Group group = Load(options);
  sg::Tensor text = Words();
  auto outputs = group.Run({{"serving_default_text", text.get()}}, {"PartitionedCall:1"});
  CHECK(outputs.status().code() == TF_INTERNAL);
  CHECK(outputs.status().message().find("on purpose") != std::string::npos);
}

static void CreatesFromAGraphDef() {
  sg::Options options;
  options.set_session_num(2);
  auto group = sg::Group::New(sg::NewSessionOptions(), options);
  CHECK(group.ok());
  size_t size = 0;
  const std::unique_ptr<char, void (*)(void*)> graph_def(read_file(model("init_op.pb"), &size),
                                                         free);
  CHECK(group->Create(graph_def.get(), size).ok());
  CHECK(group->Create(graph_def.get(), size).code() == TF_ALREADY_EXISTS);
  sg::RunArguments initialise;
  initialise.targets = {"initialize"};
  initialise.session_id = 1;
  CHECK(group->Run({}, {}, initialise).ok());
  const char* const words[] = {"b"};
  const sg::Tensor word(strings(words, 1));
  for (int i = 0; i < 2; ++i) {
    auto y = group->Run({{"word", word.get()}}, {"y"});
    CHECK(y.ok());
    CHECK(float_at((*y)[0].get(), 0) == 112.5f);
  }
}

static void ACallableRunsWithoutNames() {
  sg::Options options;
  options.set_session_num(2);
  CHECK(options.set_optimization("resolved_reads", false).ok());
  CHECK(options.set_optimization("magic", true).code() == TF_INVALID_ARGUMENT);
  sg::Group group = Load(options);
  const sg::Tensor text = Words();
  const std::vector<sg::Feed> feeds = {{"serving_default_text", text.get()}};
  CHECK(group.WarmUp(feeds, {"PartitionedCall:0"}).ok());
  auto callable = group.MakeCallable({"serving_default_text"}, {"PartitionedCall:0"});
  CHECK(callable.ok());
  auto by_name = group.Run(feeds, {"PartitionedCall:0"});
  auto called = callable->Run({text.get()});
  CHECK(by_name.ok() && called.ok());
  CHECK(TF_Dim((*called)[0].get(), 0) == TF_Dim((*by_name)[0].get(), 0));
  const auto explained = group.Explain();
  CHECK(explained.ok());
  CHECK(explained->find("\"runs_as\":\"program\"") != std::string::npos);
  uint64_t programs = 0;
  for (int32_t id = 0; id < group.session_num(); ++id) programs += group.Stats(id)->way_program;
  CHECK(programs == 4);  // two to warm up
  CHECK(callable->Run({}).status().code() == TF_INVALID_ARGUMENT);
  CHECK(!group.MakeCallable({}, {"nowhere"}).ok());
}

int main() {
  ACallableRunsWithoutNames();
  RunsFromManyThreads();
  ErrorsCarryTheirMessages();
  ALambdaIsAPolicy();
  APolicyThatThrowsFailsItsRequest();
  CreatesFromAGraphDef();
  return 0;
}
