// A group as a tensorflow::Session: by target, through each function of the class, and its parts.
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/platform/threadpool_options.h"

// Last, since it takes TensorFlow's CHECK away.
#include "test_session.h"

static tf::GraphDef Graph(const char* name) {
  tf::GraphDef graph;
  CHECK_STATUS(tf::ReadBinaryProto(tf::Env::Default(), model(name), &graph));
  return graph;
}

// With the graph of a test model.
static std::unique_ptr<tf::Session> Created(const std::string& target, const char* name) {
  std::unique_ptr<tf::Session> session = NewSession(target);
  CHECK_STATUS(session->Create(Graph(name)));
  return session;
}

static tf::Tensor Scalar(float value) { return tf::Tensor(value); }

static tf::Tensor Vector(float value) {
  tf::Tensor x(tf::DT_FLOAT, tf::TensorShape({1}));
  x.flat<float>()(0) = value;
  return x;
}

// Threads of the caller's own.
struct Pool : tf::thread::ThreadPoolInterface {
  void Schedule(std::function<void()> f) override {
    ++scheduled;
    pool.Schedule(std::move(f));
  }
  int NumThreads() const override { return pool.NumThreads(); }
  int CurrentThreadId() const override { return pool.CurrentThreadId(); }

  tf::thread::ThreadPool pool{tf::Env::Default(), "own", 2};
  std::atomic<int> scheduled{0};
};

// How many requests a session of the group has answered.
static uint64_t Runs(tf::Session* session, int32_t id) { return Stats(session, id).runs; }

// How many requests have run in a way, on all sessions.
static uint64_t Ran(tf::Session* session, uint64_t SessionGroupStats::* way) {
  uint64_t ran = 0;
  for (int id = 0; id < SessionNum(session); ++id) ran += Stats(session, id).*way;
  return ran;
}

static void ServesASavedModelByTarget() {
  tf::SessionOptions stock, grouped;
  grouped.target = "session_group://3?policy=round_robin&execution=caller&kernels=stock";
  tf::SavedModelBundle one, three;
  for (auto& [options, bundle] : {std::make_pair(&stock, &one), std::make_pair(&grouped, &three)}) {
    options->config.set_intra_op_parallelism_threads(1);
    options->config.set_inter_op_parallelism_threads(1);
    CHECK_STATUS(
        tf::LoadSavedModel(*options, tf::RunOptions(), model("wide_deep"), {"serve"}, bundle));
  }
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 20; ++j) {
        tf::Tensor ids(tf::DT_INT64, tf::TensorShape({2, 26}));
        for (int k = 0; k < 52; ++k) ids.flat<int64_t>()(k) = 1000003 * (i + 1) * (j + k);
        tf::Tensor dense(tf::DT_FLOAT, tf::TensorShape({2, 13}));
        for (int k = 0; k < 26; ++k) dense.flat<float>()(k) = 0.01f * float(i + j - k);
        tf::Tensor country(tf::DT_STRING, tf::TensorShape({2}));
        country.flat<tf::tstring>()(0) = "at";
        country.flat<tf::tstring>()(1) = "nowhere";
        const std::vector<std::pair<std::string, tf::Tensor>> inputs = {
            {"serving_default_ids:0", ids},
            {"serving_default_dense:0", dense},
            {"serving_default_country:0", country}};
        Tensors expected, got;
        const std::string output = "StatefulPartitionedCall:0";
        CHECK_STATUS(one.session->Run(inputs, {output}, {}, &expected));
        CHECK_STATUS(three.session->Run(inputs, {output}, {}, &got));
        CHECK(got.size() == 1 && got[0].tensor_data() == expected[0].tensor_data());
        ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(answered == 120);
  // Loading itself runs on the group, too.
  for (int id = 0; id < 3; ++id) CHECK(Runs(three.session.get(), id) >= 40);
  CHECK_STATUS(three.session->Close());
}

static void ServesThroughTheCApi() {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_SetTarget(options, "session_group:2");
  TF_Graph* graph = TF_NewGraph();
  const char* const tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, nullptr, model("strings"), tags, 1,
                                                     graph, nullptr, status);
  CHECK_OK(status);
  const char* const words[] = {"to be or not to be"};
  TF_Tensor* text = strings(words, 1);
  const TF_Output feed = {TF_GraphOperationByName(graph, "serving_default_text"), 0};
  const TF_Output fetch = {TF_GraphOperationByName(graph, "PartitionedCall"), 1};
  for (int i = 0; i < 4; ++i) {
    TF_Tensor* counts = nullptr;
    TF_SessionRun(session, nullptr, &feed, &text, 1, &fetch, &counts, 1, nullptr, 0, nullptr,
                  status);
    CHECK_OK(status);
    CHECK(TF_Dim(counts, 0) == 4);
    TF_DeleteTensor(counts);
  }
  TF_Buffer* json = TF_NewBuffer();
  SessionGroup_DescribeAll(json, status);
  CHECK_OK(status);
  const std::string described(static_cast<const char*>(json->data), json->length);
  CHECK(described.front() == '[' && described.find("\"policy\":\"thread\"") != std::string::npos);
  TF_Buffer* why = TF_NewBuffer();
  SessionGroup_ExplainAll(why, status);
  CHECK_OK(status);
  const std::string explained(static_cast<const char*>(why->data), why->length);
  CHECK(explained.front() == '[' && explained.find("\"runs_as\":\"program\"") != std::string::npos);
  TF_DeleteBuffer(why);
  TF_Buffer* metrics = TF_NewBuffer();
  SessionGroup_AllMetricsText(metrics, status);
  CHECK_OK(status);
  const std::string text_of_all(static_cast<const char*>(metrics->data), metrics->length);
  CHECK(text_of_all.find("session=\"1\",code=\"OK\"}") != std::string::npos);
  TF_DeleteBuffer(json);
  TF_DeleteBuffer(metrics);
  TF_DeleteTensor(text);
  TF_CloseSession(session, status);
  CHECK_OK(status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
}

static void RefusesBadTargets() {
  for (const auto& [target, part] : std::vector<std::pair<std::string, const char*>>{
           {"session_group:four", "\"four\""},
           {"session_group:0", "session_num is 0"},
           {"session_group://2?policy=best", "\"policy=best\""},
           {"session_group://2?cpuset=0;1;2", "3 entries"},
           {"session_group://2?polcy=thread", "\"polcy\""}}) {
    tf::SessionOptions options;
    options.target = target;
    tf::Session* session = reinterpret_cast<tf::Session*>(1);
    CHECK_REFUSED(tf::NewSession(options, &session), InvalidArgument, part);
    CHECK(session == nullptr);
  }
  // Other targets are none of ours.
  tf::SessionOptions options;
  options.target = "session_groups:2";
  tf::Session* session = nullptr;
  CHECK(absl::IsNotFound(tf::NewSession(options, &session)));
  std::unique_ptr<tf::Session> stock = Created("", "trivial.pb");
  TF_Status* status = TF_NewStatus();
  CHECK(SessionGroup_FromCppSession(stock.get(), status) == nullptr);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  CHECK(SessionGroup_NewCppPart(stock.get(), 0, status) == nullptr);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  TF_DeleteStatus(status);
}

static void RunsInEachWay() {
  std::unique_ptr<tf::Session> session = NewSession("session_group:2");
  Tensors got;
  CHECK_REFUSED(session->Run({}, {"y:0"}, {}, &got), FailedPrecondition, "no graph");
  CHECK_STATUS(session->Create(tf::RunOptions(), Graph("trivial.pb")));
  CHECK_REFUSED(session->Create(Graph("trivial.pb")), AlreadyExists, "extend");
  CHECK_STATUS(session->Extend(tf::GraphDef()));  // nothing to add

  CHECK_STATUS(session->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got));
  CHECK(got.size() == 1 && got[0].flat<float>()(0) == 2);
  // The same again, twice, under an alias.
  CHECK_STATUS(session->Run({{"x", Vector(2)}}, {"y", "y:0"}, {"y"}, &got));
  CHECK(got.size() == 2 && got[1].flat<float>()(0) == 3);
  CHECK_STATUS(session->Run({{"x:0", Vector(1)}}, {}, {"y"}, nullptr));
  tf::RunOptions options;
  tf::RunMetadata metadata;
  options.set_timeout_in_ms(10000);
  CHECK_STATUS(session->Run(options, {{"x:0", Vector(3)}}, {"y:0"}, {}, &got, &metadata));
  CHECK(got[0].flat<float>()(0) == 4 && metadata.ByteSizeLong() == 0);
  options.set_trace_level(tf::RunOptions::FULL_TRACE);
  CHECK_STATUS(session->Run(options, {{"x:0", Vector(3)}}, {"y:0"}, {}, &got, &metadata));
  CHECK(got[0].flat<float>()(0) == 4 && metadata.step_stats().dev_stats_size() > 0);

  Pool own;
  tf::thread::ThreadPoolOptions pools;
  CHECK_STATUS(session->Run({}, {{"x:0", Vector(4)}}, {"y:0"}, {}, &got, nullptr, pools));
  CHECK(own.scheduled == 0);
  pools.inter_op_threadpool = &own;
  CHECK_STATUS(session->Run({}, {{"x:0", Vector(4)}}, {"y:0"}, {}, &got, nullptr, pools));
  CHECK(got[0].flat<float>()(0) == 5 && own.scheduled > 0);

  CHECK_REFUSED(session->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, nullptr), InvalidArgument, "NULL");
  CHECK_REFUSED(session->Run({{"x:0", Vector(1)}}, {"z:0"}, {}, &got), InvalidArgument, "z:0");
  CHECK_REFUSED(session->Run({{"\xff", Vector(1)}}, {"y:0"}, {}, &got), InvalidArgument, "UTF-8");
  tf::Tensor text(tf::tstring("text"));
  CHECK_REFUSED(session->Run({{"x:0", text}}, {"y:0"}, {}, &got), InvalidArgument, "x");
  CHECK_REFUSED(session->Finalize(), Unimplemented, "Finalize");

  // Each request was counted once, in its way; those that are wrong in themselves never came to a
  // session.
  CHECK(Ran(session.get(), &SessionGroupStats::way_program) == 6);
  CHECK(Ran(session.get(), &SessionGroupStats::way_run_options) == 1);
  CHECK(Ran(session.get(), &SessionGroupStats::way_visit) == 1);
  CHECK(Ran(session.get(), &SessionGroupStats::way_not_run) == 1);
  CHECK(Ran(session.get(), &SessionGroupStats::runs) == 9);

  std::vector<tf::DeviceAttributes> devices;
  CHECK_STATUS(session->ListDevices(&devices));
  CHECK(devices.size() == 1 && devices[0].device_type() == "CPU");
  CHECK_STATUS(session->Close());
  CHECK_STATUS(session->Close(tf::RunOptions()));
  CHECK_REFUSED(session->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got), FailedPrecondition,
                "closed");
  CHECK_REFUSED(session->ListDevices(&devices), FailedPrecondition, "closed");
}

static void RunsCallables() {
  std::unique_ptr<tf::Session> session =
      Created("session_group://2?policy=round_robin", "trivial.pb");
  tf::CallableOptions plain;
  plain.add_feed("x:0");
  plain.add_fetch("y:0");
  tf::CallableOptions placed = plain;  // which the sessions themselves have to know
  (*placed.mutable_feed_devices())["x:0"] = "/job:localhost/replica:0/task:0/device:CPU:0";
  tf::CallableOptions timed = plain;
  timed.mutable_run_options()->set_timeout_in_ms(10000);
  Tensors got;
  for (const tf::CallableOptions& options : {plain, placed, timed}) {
    tf::Session::CallableHandle handle, other;
    CHECK_STATUS(session->MakeCallable(options, &handle));
    CHECK_STATUS(session->MakeCallable(options, &other));
    CHECK(handle != other);
    for (int i = 0; i < 4; ++i) {
      tf::RunMetadata metadata;
      CHECK_STATUS(session->RunCallable(handle, {Vector(float(i))}, &got, &metadata));
      CHECK(got.size() == 1 && got[0].flat<float>()(0) == float(i + 1));
      CHECK_STATUS(session->RunCallable(other, {Vector(7)}, &got, nullptr, {}));
      CHECK(got[0].flat<float>()(0) == 8);
    }
    CHECK_REFUSED(session->RunCallable(handle, {}, &got, nullptr), InvalidArgument, "1 feeds");
    CHECK_REFUSED(session->RunCallable(handle, {Vector(1)}, nullptr, nullptr), InvalidArgument,
                  "NULL");
    CHECK_STATUS(session->ReleaseCallable(handle));
    CHECK_REFUSED(session->RunCallable(handle, {Vector(1)}, &got, nullptr), InvalidArgument,
                  "released");
    CHECK_REFUSED(session->ReleaseCallable(handle), InvalidArgument, "released");
    CHECK_STATUS(session->RunCallable(other, {Vector(1)}, &got, nullptr));
    // Making and releasing for ever takes no more memory.
    for (int i = 0; i < 3000; ++i) {
      CHECK_STATUS(session->MakeCallable(options, &handle));
      CHECK_STATUS(session->ReleaseCallable(handle));
    }
    Pool own;
    tf::thread::ThreadPoolOptions pools;
    pools.inter_op_threadpool = &own;
    CHECK_STATUS(session->RunCallable(other, {Vector(1)}, &got, nullptr, pools));
    CHECK(got[0].flat<float>()(0) == 2 && own.scheduled > 0);
  }
  for (int64_t handle : {int64_t{-1}, int64_t{500}, int64_t{1} << 40}) {
    CHECK_REFUSED(session->RunCallable(handle, {}, &got, nullptr), InvalidArgument, "no callable");
  }
  CHECK(Runs(session.get(), 0) > 10 && Runs(session.get(), 1) > 10);
  plain.add_fetch("nowhere:0");
  tf::Session::CallableHandle handle;
  CHECK_REFUSED(session->MakeCallable(plain, &handle), InvalidArgument, "nowhere:0");
}

static void RunsPartially() {
  std::unique_ptr<tf::Session> session =
      Created("session_group://3?policy=round_robin", "trivial.pb");
  for (int i = 0; i < 6; ++i) {
    std::string handle;
    CHECK_STATUS(session->PRunSetup({"x:0"}, {"y:0"}, {}, &handle));
    Tensors got;
    CHECK_STATUS(session->PRun(handle, {{"x:0", Vector(float(i))}}, {"y:0"}, &got));
    CHECK(got[0].flat<float>()(0) == float(i + 1));
  }
  Tensors got;
  for (const char* handle : {"", "7", "7/x", "x/1", "-1/x"}) {
    CHECK_REFUSED(session->PRun(handle, {}, {"y:0"}, &got), InvalidArgument, "PRunSetup");
  }
  CHECK(!session->PRun("1/never", {}, {"y:0"}, &got).ok());
  CHECK(Ran(session.get(), &SessionGroupStats::way_visit) == 13);
  CHECK(Ran(session.get(), &SessionGroupStats::runs) == 13);
}

// Whoever writes a variable through the resource manager tells nobody.
static void SeesWhatIsWrittenBehindIt() {
  std::unique_ptr<tf::Session> session =
      Created("session_group://2?policy=round_robin", "writes.pb");
  CHECK_STATUS(session->Run({}, {}, {"initialize"}, nullptr));
  Tensors got;
  const auto read = [&] {
    CHECK_STATUS(session->Run({}, {"v:0"}, {}, &got));
    return got[0].flat<float>()(0);
  };
  for (int i = 0; i < 4; ++i) CHECK(read() == 0);
  CHECK_STATUS(session->Run({{"x:0", Scalar(3)}}, {}, {"assign"}, nullptr));
  for (int i = 0; i < 4; ++i) CHECK(read() == 3);
  const tf::DeviceMgr* devices = nullptr;
  CHECK_STATUS(session->LocalDeviceManager(&devices));
  tf::Device* device;
  CHECK_STATUS(devices->LookupDevice("CPU:0", &device));
  for (float value : {5.f, 6.f}) {
    tf::Var* variable = nullptr;
    CHECK_STATUS(device->resource_manager()->Lookup("localhost", "v_", &variable));
    {
      tf::mutex_lock lock(*variable->mu());
      tf::Tensor written(tf::DT_FLOAT, tf::TensorShape({4}));
      written.flat<float>().setConstant(value);
      *variable->tensor() = written;
    }
    variable->Unref();
    for (int i = 0; i < 4; ++i) CHECK(read() == value);
  }
}

static void HasParts() {
  std::unique_ptr<tf::Session> session =
      Created("session_group://3?policy=round_robin", "trivial.pb");
  TF_Status* status = TF_NewStatus();
  std::unique_ptr<tf::Session> part(
      static_cast<tf::Session*>(SessionGroup_NewCppPart(session.get(), 4, status)));
  CHECK_OK(status);
  Tensors got;
  for (int i = 0; i < 10; ++i) CHECK_STATUS(part->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got));
  CHECK(Runs(session.get(), 0) == 0 && Runs(session.get(), 1) == 10 && Runs(part.get(), 2) == 0);
  // Number -1 is all of them, for who keeps it, too.
  std::unique_ptr<tf::Session> whole(
      static_cast<tf::Session*>(SessionGroup_NewCppPart(session.get(), -1, status)));
  CHECK_OK(status);
  for (int i = 0; i < 9; ++i) CHECK_STATUS(whole->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got));
  for (int id = 0; id < 3; ++id) CHECK(Runs(session.get(), id) == (id == 1 ? 13 : 3));
  tf::CallableOptions options;
  options.add_feed("x:0");
  options.add_fetch("y:0");
  tf::Session::CallableHandle handle;
  CHECK_STATUS(part->MakeCallable(options, &handle));
  CHECK_STATUS(part->RunCallable(handle, {Vector(1)}, &got, nullptr));
  CHECK(Runs(session.get(), 1) == 14);
  CHECK_STATUS(part->Close());
  CHECK_REFUSED(part->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got), FailedPrecondition, "closed");
  CHECK_STATUS(session->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got));

  // The other way around: a group of the C ABI as a session.
  SessionGroupOptions* group_options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(group_options, 2);
  SessionGroupOptions_SetPolicy(group_options, "round_robin", status);
  CHECK_OK(status);
  SessionGroup* group = created_group(group_options, "trivial.pb");
  std::unique_ptr<tf::Session> all(
      static_cast<tf::Session*>(SessionGroup_NewCppSession(group, -1, status)));
  CHECK_OK(status);
  CHECK(SessionGroup_FromCppSession(all.get(), status) == group);
  for (int i = 0; i < 6; ++i) CHECK_STATUS(all->Run({{"x:0", Vector(1)}}, {"y:0"}, {}, &got));
  CHECK(Runs(all.get(), 0) == 3 && Runs(all.get(), 1) == 3);
  all.reset();
  SessionGroup_Delete(group);
  SessionGroupOptions_Delete(group_options);
  TF_DeleteStatus(status);
}

// A process may come to load two copies of the library, as by LD_PRELOAD and in a Python package.
// The first makes the sessions, and the second takes none of them for its own.
static void KnowsItsOwnSessions() {
  Dl_info own;
  CHECK(dladdr(reinterpret_cast<void*>(&SessionGroup_FromCppSession), &own) != 0);
  const std::filesystem::path copy = std::filesystem::temp_directory_path() /
                                     ("libsession_group_copy." + std::to_string(getpid()) + ".so");
  std::filesystem::copy_file(own.dli_fname, copy);
  void* library = dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) fprintf(stderr, "%s\n", dlerror());
  std::filesystem::remove(copy);
  CHECK(library != nullptr);
  const auto from_cpp_session = reinterpret_cast<decltype(&SessionGroup_FromCppSession)>(
      dlsym(library, "SessionGroup_FromCppSession"));
  CHECK(from_cpp_session != nullptr && from_cpp_session != &SessionGroup_FromCppSession);
  std::unique_ptr<tf::Session> session =
      Created("session_group://2?policy=round_robin", "trivial.pb");
  CHECK(Runs(session.get(), 0) == 0);
  TF_Status* status = TF_NewStatus();
  CHECK(from_cpp_session(session.get(), status) == nullptr);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  TF_DeleteStatus(status);
}

// As a session of TensorFlow's own: what runs is cancelled.
static void ClosingCancels() {
  for (const char* target : {"", "session_group:2"}) {
    std::unique_ptr<tf::Session> session = Created(target, "waits.pb");
    std::atomic<bool> begun{false};
    absl::Status ran;
    std::thread request([&] {
      Tensors got;
      begun = true;
      ran = session->Run({}, {"got"}, {}, &got);
    });
    while (!begun) std::this_thread::yield();
    // Until it waits for an element.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK_STATUS(session->Close());
    request.join();
    CHECK(absl::IsCancelled(ran));
  }
}

int main() {
  TF_Status* status = TF_NewStatus();
  SessionGroup_RegisterTarget(status);  // again: does nothing
  CHECK_OK(status);
  TF_DeleteStatus(status);
  ServesASavedModelByTarget();
  ServesThroughTheCApi();
  RefusesBadTargets();
  RunsInEachWay();
  RunsCallables();
  RunsPartially();
  SeesWhatIsWrittenBehindIt();
  HasParts();
  KnowsItsOwnSessions();
  ClosingCancels();
}
