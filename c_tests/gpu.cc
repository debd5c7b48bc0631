// Multi-stream groups, on GPUs of a test library: test_gpu/test_gpu.cc, named by TEST_GPU_LIBRARY.
// TensorFlow fixes the GPUs of a process once, so that each test is a process of its own.
#include <dlfcn.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/cc/saved_model/reader.h"
#include "tensorflow/core/framework/node_def_util.h"

// Last, since it takes TensorFlow's CHECK away.
#include "test_session.h"

extern char** environ;

static void LoadGpus() {
  const char* library = getenv("TEST_GPU_LIBRARY");
  CHECK(library != nullptr);
  if (dlopen(library, RTLD_NOW | RTLD_LOCAL) == nullptr) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
}

static tf::NodeDef* Add(tf::GraphDef* graph, const std::string& name, const std::string& op,
                        const std::vector<std::string>& inputs = {},
                        const std::string& device = "/GPU:0") {
  tf::NodeDef* node = graph->add_node();
  node->set_name(name);
  node->set_op(op);
  node->set_device(device);
  for (const std::string& input : inputs) node->add_input(input);
  return node;
}

static void Variable(tf::GraphDef* graph, const std::string& name, const std::string& device) {
  tf::NodeDef* node = Add(graph, name, "VarHandleOp", {}, device);
  tf::AddNodeAttr("dtype", tf::DT_FLOAT, node);
  tf::AddNodeAttr("shape", tf::PartialTensorShape(), node);
  tf::AddNodeAttr("shared_name", name, node);
  node = Add(graph, name + "/assign", "AssignVariableOp", {name, "x"}, device);
  tf::AddNodeAttr("dtype", tf::DT_FLOAT, node);
  node = Add(graph, name + "/read", "ReadVariableOp", {name}, device);
  tf::AddNodeAttr("dtype", tf::DT_FLOAT, node);
}

// x, same: float of any shape. v/assign, host/assign: set a variable on the GPU, on the CPU; y: v +
// x, while v is read; touch: writes v, as far as anyone can tell; where: see test_gpu.cc.
static tf::GraphDef Graph() {
  tf::GraphDef graph;
  graph.mutable_versions()->set_producer(1395);
  tf::AddNodeAttr("dtype", tf::DT_FLOAT, Add(&graph, "x", "Placeholder", {}, ""));
  Variable(&graph, "v", "/device:GPU:0");
  Variable(&graph, "host", "/CPU:0");
  Add(&graph, "slow", "TestGpuRead", {"v/read"});
  tf::AddNodeAttr("T", tf::DT_FLOAT, Add(&graph, "y", "AddV2", {"slow", "x"}));
  tf::AddNodeAttr("T", tf::DT_FLOAT, Add(&graph, "same", "Identity", {"x"}, ""));
  Add(&graph, "touch", "TestGpuWrite", {"v"});
  Add(&graph, "where", "TestGpuWhere");
  return graph;
}

static tf::Tensor Vector(std::initializer_list<float> values) {
  tf::Tensor x(tf::DT_FLOAT, tf::TensorShape({static_cast<int64_t>(values.size())}));
  std::copy(values.begin(), values.end(), x.flat<float>().data());
  return x;
}

// Of so many floats.
static tf::Tensor Large(int64_t n) {
  tf::Tensor x(tf::DT_FLOAT, tf::TensorShape({n}));
  x.flat<float>().setZero();
  return x;
}

static std::unique_ptr<tf::Session> Created(const std::string& target) {
  std::unique_ptr<tf::Session> session = NewSession(target);
  CHECK_STATUS(session->Create(Graph()));
  return session;
}

static absl::Status Refused(const std::string& target, const tf::SessionOptions& like = {}) {
  tf::SessionOptions options = like;
  options.target = target;
  tf::Session* session = nullptr;
  absl::Status made = tf::NewSession(options, &session);
  delete session;
  return made;
}

// One session of a group.
static std::unique_ptr<tf::Session> Part(tf::Session* group, int32_t id) {
  TF_Status* status = TF_NewStatus();
  void* part = SessionGroup_NewCppPart(group, id, status);
  CHECK_OK(status);
  TF_DeleteStatus(status);
  return std::unique_ptr<tf::Session>(static_cast<tf::Session*>(part));
}

static float First(tf::Session* session, const std::string& fetch,
                   const std::vector<std::pair<std::string, tf::Tensor>>& feeds = {}) {
  Tensors got;
  CHECK_STATUS(session->Run(feeds, {fetch}, {}, &got));
  return got[0].flat<float>()(0);
}

static void Assign(tf::Session* session, const std::string& variable, const tf::Tensor& value) {
  CHECK_STATUS(session->Run({{"x", value}}, {}, {variable + "/assign"}, nullptr));
}

struct Where {
  std::string device, virtual_device;
  int64_t session, resources, memory;
};

static Where WhereIs(tf::Session* session) {
  Tensors got;
  CHECK_STATUS(session->Run({}, {"where:0", "where:1", "where:2", "where:3", "where:4"}, {}, &got));
  return {got[0].scalar<tf::tstring>()(), got[1].scalar<tf::tstring>()(),
          got[2].scalar<int64_t>()(), got[3].scalar<int64_t>()(), got[4].scalar<int64_t>()()};
}

static std::string Text(void (*write)(TF_Buffer*, TF_Status*)) {
  TF_Status* status = TF_NewStatus();
  TF_Buffer* buffer = TF_NewBuffer();
  write(buffer, status);
  CHECK_OK(status);
  const std::string text(static_cast<const char*>(buffer->data), buffer->length);
  TF_DeleteBuffer(buffer);
  TF_DeleteStatus(status);
  return text;
}

static std::string GpuName(int number) {
  return "/job:localhost/replica:0/task:0/device:GPU:" + std::to_string(number);
}

static void EachSessionHasAStream() {
  setenv("TEST_GPU_COUNT", "1", 1);
  LoadGpus();
  std::unique_ptr<tf::Session> group =
      Created("session_group://3?multi_stream=true&policy=round_robin");
  Assign(group.get(), "v", Large(1 << 20));
  std::set<int64_t> sessions, resources;
  std::vector<int64_t> memory;
  for (int i = 0; i < 3; ++i) {
    std::unique_ptr<tf::Session> part = Part(group.get(), i);
    const Where where = WhereIs(part.get());
    CHECK(where.device == GpuName(0) && where.virtual_device == GpuName(i));
    sessions.insert(where.session);
    resources.insert(where.resources);
    CHECK(First(part.get(), "y", {{"x", Vector({5})}}) == 5);
    memory.push_back(where.memory);
    std::vector<tf::DeviceAttributes> devices;
    CHECK_STATUS(part->ListDevices(&devices));
    CHECK(devices.size() == 2);
    const SessionGroupStats stats = Stats(part.get(), i);
    CHECK(stats.gpu == 0 && stats.virtual_device == i && stats.stream_group == i);
    CHECK(stats.leader == (i == 0) && stats.runs > 0);
  }
  CHECK(sessions.size() == 3 && resources.size() == 1);
  // One copy of 4 MB, and no more for further sessions.
  CHECK(memory[0] > 4 << 20 && memory[0] < 8 << 20 && memory[2] < memory[0] + (1 << 20));
  // What goes to the sessions in turn comes from all of them.
  std::set<std::string> used;
  for (int i = 0; i < 6; ++i) used.insert(WhereIs(group.get()).virtual_device);
  CHECK(used.size() == 3);

  const std::string described = Text(SessionGroup_DescribeAll);
  CHECK(described.find("\"multi_stream\":{\"gpu_ids\":[0],\"mps\":null}") != std::string::npos);
  CHECK(described.find("\"gpu\":0") != std::string::npos);
  CHECK(described.find("\"leader\":true") != std::string::npos);
  const std::string metrics = Text(SessionGroup_AllMetricsText);
  CHECK(metrics.find("session=\"2\",gpu=\"0\",virtual_device=\"2\",stream_group=\"2\","
                     "leader=\"false\"} 1") != std::string::npos);
  CHECK_STATUS(group->Close());
}

static void EachGpuHasACopy() {
  LoadGpus();
  std::unique_ptr<tf::Session> group = Created("session_group://2?multi_stream=true");
  std::vector<std::unique_ptr<tf::Session>> parts;
  for (int i = 0; i < 4; ++i) parts.push_back(Part(group.get(), i));
  // Sessions take turns on the GPUs; virtual devices are numbered by GPU.
  std::map<int64_t, std::set<int>> by_resources;
  for (int i = 0; i < 4; ++i) {
    const Where where = WhereIs(parts[i].get());
    CHECK(where.device == GpuName(0) && where.virtual_device == GpuName(i % 2 * 2 + i / 2));
    by_resources[where.resources].insert(i);
    CHECK(Stats(group.get(), i).gpu == i % 2 && Stats(group.get(), i).leader == (i < 2));
  }
  CHECK(by_resources.size() == 2);
  for (const auto& [resources, sessions] : by_resources) CHECK(sessions.size() == 2);

  // Through the group, all copies are written; through a session, its GPU's.
  Assign(group.get(), "v", Vector({1}));
  for (const auto& part : parts) CHECK(First(part.get(), "v/read") == 1);
  Assign(parts[3].get(), "v", Vector({2}));
  for (int i = 0; i < 4; ++i) CHECK(First(parts[i].get(), "v/read") == 1 + i % 2);
  // A write that also answers does so once.
  Tensors got;
  tf::RunMetadata metadata;
  CHECK_STATUS(group->Run({}, {{"x", Vector({3})}}, {"same"}, {"v/assign"}, &got, &metadata));
  CHECK(got.size() == 1 && got[0].flat<float>()(0) == 3);
  for (const auto& part : parts) CHECK(First(part.get(), "v/read") == 3);
  // A callable, too.
  tf::CallableOptions callable;
  callable.add_feed("x:0");
  callable.add_target("v/assign");
  tf::Session::CallableHandle handle;
  CHECK_STATUS(group->MakeCallable(callable, &handle));
  CHECK_STATUS(group->RunCallable(handle, {Vector({4})}, nullptr, nullptr));
  for (const auto& part : parts) CHECK(First(part.get(), "v/read") == 4);
  // What runs on each GPU is still one request, and is counted as one.
  const auto on_pool = [&] {
    uint64_t requests = 0;
    for (int i = 0; i < 4; ++i) requests += Stats(group.get(), i).on_pool;
    return requests;
  };
  const uint64_t before = on_pool();
  tf::RunOptions timed;
  timed.set_timeout_in_ms(60000);
  CHECK_STATUS(group->Run(timed, {{"x", Vector({5})}}, {}, {"v/assign"}, nullptr, nullptr));
  for (const auto& part : parts) CHECK(First(part.get(), "v/read") == 5);
  CHECK(on_pool() == before + 1);

  // There is one CPU.
  Assign(parts[1].get(), "host", Vector({7}));
  for (const auto& part : parts) CHECK(First(part.get(), "host/read") == 7);
}

static void ServesASavedModel() {
  LoadGpus();
  const std::string dir = model("on_gpu");
  const auto load = [&](const tf::SessionOptions& options, tf::SavedModelBundle* bundle) {
    return tf::LoadSavedModel(options, tf::RunOptions(), dir, {"serve"}, bundle);
  };
  tf::SessionOptions stock, grouped;
  // By a session of its own device, which is the group's first one's, too.
  stock.config.mutable_gpu_options()->set_visible_device_list("0");
  grouped.target = "session_group://3?multi_stream=true&gpu_ids=0,1&policy=round_robin";
  tf::SavedModelBundle one, six;
  CHECK_STATUS(load(grouped, &six));
  CHECK_STATUS(load(stock, &one));

  // The same model by DeepRec's API.
  tf::SessionGroupMetadata metadata;
  metadata.session_count = 2;
  metadata.gpu_ids = {1, 0};
  tf::SessionGroup* deeprec = nullptr;
  CHECK_STATUS(tf::NewSessionGroup(tf::SessionOptions(), &deeprec, metadata));
  std::unique_ptr<tf::SessionGroup> owned(deeprec);
  CHECK(deeprec->GetSessionNum() == 4 && deeprec->GetLeaderSessions().size() == 2);
  CHECK(deeprec->GetLeaderSession() == deeprec->GetLeaderSessions()[0]);
  tf::MetaGraphDef graph;
  CHECK_STATUS(tf::ReadMetaGraphDefFromSavedModel(dir, {"serve"}, &graph));
  CHECK_STATUS(deeprec->Create(graph.graph_def()));
  for (int i = 0; i < 2; ++i) {
    CHECK_STATUS(tf::RestoreSession(tf::RunOptions(), graph, dir, deeprec->GetSessionPtr(i)));
  }

  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 30; ++j) {
        tf::Tensor ids(tf::DT_INT64, tf::TensorShape({3, 4}));
        for (int k = 0; k < 12; ++k) ids.flat<int64_t>()(k) = (31 * i + 7 * j + k) % 100;
        tf::Tensor x(tf::DT_FLOAT, tf::TensorShape({3, 16}));
        for (int k = 0; k < 48; ++k) x.flat<float>()(k) = 0.1f * float(i - j + k);
        const std::vector<std::pair<std::string, tf::Tensor>> feeds = {{"ids:0", ids}, {"x:0", x}};
        Tensors expected, got, deep;
        CHECK_STATUS(one.session->Run(feeds, {"y:0"}, {}, &expected));
        CHECK_STATUS(six.session->Run(feeds, {"y:0"}, {}, &got));
        CHECK_STATUS(deeprec->Run(feeds, {"y:0"}, {}, &deep));
        CHECK(got[0].tensor_data() == expected[0].tensor_data());
        CHECK(deep[0].tensor_data() == expected[0].tensor_data());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 6; ++i) CHECK(Stats(six.session.get(), i).runs >= 15);

  // The same by the C API.
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 1);
  SessionGroupOptions_SetMultiStream(options, true);
  const int32_t ids[] = {1, 0};
  SessionGroupOptions_SetGpuIds(options, ids, 2, status);
  CHECK_OK(status);
  const char* const tags[] = {"serve"};
  SessionGroup* group = LoadSessionGroupFromSavedModel(session_options, nullptr, dir.c_str(), tags,
                                                       1, options, nullptr, status);
  CHECK_OK(status);
  CHECK(SessionGroup_SessionNum(group) == 2);
  SessionGroup_Delete(group);
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
}

static void GroupsShareTheLayout() {
  LoadGpus();
  std::unique_ptr<tf::Session> first = Created("session_group://2?multi_stream=true&gpu_ids=0");
  std::unique_ptr<tf::Session> second = Created("session_group://1?multi_stream=true&gpu_ids=0");
  std::unique_ptr<tf::Session> other = Created("session_group://2?multi_stream=true&gpu_ids=1");
  Assign(first.get(), "v", Vector({1}));
  Assign(second.get(), "v", Vector({2}));
  Assign(other.get(), "v", Vector({3}));
  CHECK(First(first.get(), "v/read") == 1 && First(second.get(), "v/read") == 2);
  CHECK(WhereIs(Part(other.get(), 0).get()).virtual_device == GpuName(2));
  // More streams than there are, other GPUs: both layouts are named.
  CHECK_REFUSED(Refused("session_group://3?multi_stream=true"), FailedPrecondition,
                "needs 3 virtual devices on each of 2 GPUs");
  CHECK_REFUSED(Refused("session_group://3?multi_stream=true"), FailedPrecondition,
                "has made 2 virtual devices on each of 2 GPUs");
  tf::SessionOptions fewer;
  fewer.config.mutable_gpu_options()->set_visible_device_list("1");
  CHECK_REFUSED(Refused("session_group://1?multi_stream=true", fewer), FailedPrecondition,
                "(visible_device_list \"1\")");
  // One goes while the others serve.
  std::atomic<bool> done{false};
  std::thread serving([&] {
    while (!done) CHECK(First(second.get(), "y", {{"x", Vector({1})}}) == 3);
  });
  for (int i = 0; i < 5; ++i) {
    first.reset();
    first = Created("session_group://2?multi_stream=true&gpu_ids=0");
    Assign(first.get(), "v", Vector({4}));
    CHECK(First(first.get(), "v/read") == 4);
  }
  first.reset();
  other.reset();
  done = true;
  serving.join();
  CHECK(First(second.get(), "v/read") == 2);
}

static void TheCallerMayLayOut() {
  LoadGpus();
  tf::SessionOptions options;
  options.target = "session_group://2?multi_stream=true&gpu_ids=1";
  auto* gpus = options.config.mutable_gpu_options()->mutable_experimental();
  gpus->add_virtual_devices()->add_memory_limit_mb(64);
  CHECK_REFUSED(Refused(options.target, options), InvalidArgument,
                "are 1 virtual devices on each of 1 GPUs");
  gpus->mutable_virtual_devices(0)->add_memory_limit_mb(64);
  for (int i = 0; i < 4; ++i) {
    if (i == 0) gpus->add_virtual_devices();
    gpus->mutable_virtual_devices(1)->add_memory_limit_mb(32);
  }
  tf::Session* session = nullptr;
  CHECK_STATUS(tf::NewSession(options, &session));
  std::unique_ptr<tf::Session> group(session);
  CHECK_STATUS(group->Create(Graph()));
  CHECK(WhereIs(Part(group.get(), 0).get()).virtual_device == GpuName(2));
  // The options stayed as they were.
  CHECK(!options.config.gpu_options().allow_growth());
  CHECK(options.target == "session_group://2?multi_stream=true&gpu_ids=1");
}

static void WritesExcludeReads() {
  LoadGpus();
  std::unique_ptr<tf::Session> group = Created("session_group://3?multi_stream=true");
  Assign(group.get(), "v", Vector({1}));
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 25; ++j) {
        if (i < 4) {
          CHECK(First(group.get(), "y", {{"x", Vector({1})}}) == 2);
        } else {
          CHECK_STATUS(group->Run({}, {}, {"touch"}, nullptr));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

static void MistakesAreStatuses() {
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true"), FailedPrecondition,
                "without GPU support");
  setenv("TEST_GPU_MOST", "8", 1);
  setenv("TEST_GPU_MEMORY_MB", "8", 1);
  LoadGpus();
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true&gpu_ids=2"), InvalidArgument,
                "sees 2 GPUs");
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true&gpu_ids=1,1"), InvalidArgument,
                "1 twice");
  CHECK_REFUSED(Refused("session_group://2?gpu_ids=1"), InvalidArgument, "without multi_stream");
  CHECK_REFUSED(Refused("session_group://9?multi_stream=true"), ResourceExhausted,
                "can't make 9 virtual devices on each of 2 GPUs");
  CHECK_REFUSED(Refused("session_group://600?multi_stream=true"), InvalidArgument, "are 1200");
  CHECK_REFUSED(Refused("session_group://?multi_stream=true"), InvalidArgument,
                "session_num is not set");
  tf::SessionOptions options;
  auto* gpus = options.config.mutable_gpu_options();
  gpus->set_per_process_gpu_memory_fraction(0.5);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true", options), InvalidArgument,
                "per_process_gpu_memory_fraction");
  gpus->clear_per_process_gpu_memory_fraction();
  gpus->mutable_experimental()->set_use_cuda_malloc_async(true);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true", options), InvalidArgument,
                "cuda_malloc_async");
  setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false", 1);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true"), InvalidArgument,
                "TF_FORCE_GPU_ALLOW_GROWTH");
  unsetenv("TF_FORCE_GPU_ALLOW_GROWTH");
  tf::SessionOptions clusters;
  clusters.config.mutable_graph_options()->mutable_optimizer_options()->set_global_jit_level(
      tf::OptimizerOptions::ON_1);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true", clusters), InvalidArgument,
                "global_jit_level");
  tf::SessionOptions none;
  (*none.config.mutable_device_count())["GPU"] = 0;
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true", none), InvalidArgument,
                "device_count");
  setenv("TEST_GPU_COUNT", "0", 1);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true"), FailedPrecondition, "finds none");
  unsetenv("TEST_GPU_COUNT");

  // Not one of these has laid the GPUs out.
  std::unique_ptr<tf::Session> group = Created("session_group://8?multi_stream=true");
  CHECK_REFUSED(group->Run({{"x", Large(4 << 20)}}, {}, {"v/assign"}, nullptr), ResourceExhausted,
                "");
  Assign(group.get(), "v", Vector({1}));
  CHECK(First(group.get(), "v/read") == 1);

  tf::SessionOptions compiled;
  compiled.target = "session_group://2?multi_stream=true";
  tf::SavedModelBundle bundle;
  CHECK_REFUSED(tf::LoadSavedModel(compiled, tf::RunOptions(), model("jit"), {"serve"}, &bundle),
                Unimplemented, "jit_compile");
}

static void ClosingReports() {
  setenv("TEST_GPU_COUNT", "1", 1);
  LoadGpus();
  for (const bool fails : {true, false}) {
    setenv("TEST_GPU_SYNC_FAILS", "0", 1);
    std::unique_ptr<tf::Session> group = Created("session_group://2?multi_stream=true");
    Assign(group.get(), "v", Vector({1}));
    setenv("TEST_GPU_SYNC_FAILS", fails ? "1" : "0", 1);
    if (fails) {
      CHECK_REFUSED(group->Close(), DataLoss, "on purpose");
    } else {
      CHECK_STATUS(group->Close());
    }
    // It is closed all the same.
    Tensors got;
    CHECK_REFUSED(group->Run({}, {"v/read"}, {}, &got), FailedPrecondition, "closed");
  }
}

// A kernel that throws, here on the CPU, is its request's error on whichever thread it runs; the
// session and its next request are not harmed.
static void KernelsThatThrow() {
  LoadGpus();
  tf::GraphDef graph;
  tf::AddNodeAttr("dtype", tf::DT_FLOAT, Add(&graph, "x", "Placeholder", {}, ""));
  Add(&graph, "y", "TestThrow", {"x"}, "");
  for (const std::string execution : {"caller", "worker", "pool"}) {
    for (const std::string programs : {"true", "false"}) {
      std::unique_ptr<tf::Session> group =
          NewSession("session_group://2?execution=" + execution + "&serial_executor=" + programs);
      CHECK_STATUS(group->Create(graph));
      for (int i = 0; i < 4; ++i) {
        Tensors y;
        const auto run = [&](float x) { return group->Run({{"x", Vector({x})}}, {"y"}, {}, &y); };
        CHECK_REFUSED(run(-1), Internal, "on purpose");
        CHECK_REFUSED(run(-2), ResourceExhausted, "out of memory");
        CHECK_REFUSED(run(-3), Internal, "unknown type");
        CHECK_STATUS(run(7));
        CHECK(y[0].flat<float>()(0) == 7);
      }
      CHECK_STATUS(group->Close());
    }
  }
}

static void AsksForTheMpsDaemon() {
  setenv("TEST_GPU_COUNT", "1", 1);
  LoadGpus();
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("session_group_mps." + std::to_string(getpid()));
  setenv("ENABLE_MPS", "1", 1);
  setenv("CUDA_MPS_PIPE_DIRECTORY", directory.c_str(), 1);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true"), FailedPrecondition,
                "nvidia-cuda-mps-control -d");
  CHECK_STATUS(Refused("session_group:2"));  // which it does not concern

  std::filesystem::create_directory(directory);
  const int daemon = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof(address.sun_path), "%s/control", directory.c_str());
  CHECK(bind(daemon, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(listen(daemon, 1) == 0);
  std::unique_ptr<tf::Session> group = NewSession("session_group://?multi_stream=true");
  CHECK(Stats(group.get(), 3).stream_group == 3);  // 4 sessions, as DeepRec has contexts
  setenv("CONTEXTS_COUNT_PER_GPU", "2", 1);
  group = NewSession("session_group://?multi_stream=true");
  CHECK(Stats(group.get(), 1).stream_group == 1 && SessionNum(group.get()) == 2);
  CHECK(Text(SessionGroup_DescribeAll)
            .find("\"mps\":{\"contexts_asked_for\":2,\"contexts_per_gpu\":1}") !=
        std::string::npos);
  setenv("CONTEXTS_COUNT_PER_GPU", "many", 1);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true"), InvalidArgument, "\"many\"");
  setenv("ENABLE_MPS", "yes", 1);
  CHECK_REFUSED(Refused("session_group://2?multi_stream=true"), InvalidArgument, "\"yes\"");
  close(daemon);
  std::filesystem::remove_all(directory);
}

int main(int argc, char** argv) {
  const std::map<std::string, void (*)()> tests = {
      {"EachSessionHasAStream", EachSessionHasAStream},
      {"EachGpuHasACopy", EachGpuHasACopy},
      {"ServesASavedModel", ServesASavedModel},
      {"GroupsShareTheLayout", GroupsShareTheLayout},
      {"TheCallerMayLayOut", TheCallerMayLayOut},
      {"WritesExcludeReads", WritesExcludeReads},
      {"MistakesAreStatuses", MistakesAreStatuses},
      {"AsksForTheMpsDaemon", AsksForTheMpsDaemon},
      {"ClosingReports", ClosingReports},
      {"KernelsThatThrow", KernelsThatThrow},
  };
  if (argc > 1) {
    tests.at(argv[1])();
    return 0;
  }
  int failed = 0;
  for (const auto& [name, test] : tests) {
    std::string argument = name;
    char* arguments[] = {argv[0], argument.data(), nullptr};
    pid_t child;
    int ended = 0;
    CHECK(posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, arguments, environ) == 0);
    CHECK(waitpid(child, &ended, 0) == child);
    printf("%s: %s\n", name.c_str(), ended == 0 ? "ok" : "FAILED");
    failed += ended != 0;
  }
  return failed == 0 ? 0 : 1;
}
