// Whatever is passed, a status with a message that says what to change: one row for each mistake.
// (A TensorFlow of another version has a program of its own, version.c.)
#define _GNU_SOURCE  // mmap
#include <sys/mman.h>

#include "test.h"

static SessionGroup* group;   // 2 sessions with init_op.pb, initialised
static SessionGroup* fresh;   // without a graph
static SessionGroup* closed;  // as `group`, but closed
static SessionGroup* mlp;     // mlp_frozen.pb
static TF_SessionOptions* session_options;
static SessionGroupOptions* options;  // session_num 2
static TF_Tensor* word;               // string [2]
static TF_Tensor* number;             // float []
static TF_Graph* graph;               // init_op.pb
static char temporary[] = "/tmp/session_group_test.XXXXXX";

static const char* const kServe[] = {"serve"};
static const char* const kWord[] = {"word"};
static const char* const kY[] = {"y"};
static const char* const kBadUtf8[] = {"\xff\xfe"};
static const char* const kNullName[] = {NULL};
static const char* const kDir = "/nonexistent/model";

static void new_group(int32_t session_num, TF_Status* status) {
  CHECK(NewSessionGroup(session_options, session_num, status) == NULL);
}

static void load(const char* dir, const char* const* tags, int32_t ntags, TF_Status* status) {
  CHECK(LoadSessionGroupFromSavedModel(session_options, NULL, dir, tags, ntags, options, NULL,
                                       status) == NULL);
}

// Runs and makes sure that a failure leaves the out-parameter alone.
static void run(SessionGroup* on, const char* const* feeds, TF_Tensor* const* tensors, int32_t n,
                const char* const* fetches, int32_t noutputs, const char* const* targets,
                int32_t ntargets, TF_Status* status) {
  TF_Tensor* const marker = (TF_Tensor*)temporary;
  TF_Tensor* y = marker;
  SessionGroup_Run(on, NULL, feeds, tensors, n, fetches, &y, noutputs, targets, ntargets, NULL,
                   status);
  if (TF_GetCode(status) != TF_OK) CHECK(y == marker);
}

static const char* in_temporary(const char* name) {
  static char path[4096];
  snprintf(path, sizeof(path), "%s/%s", temporary, name);
  return path;
}

static void create(SessionGroup* on, const char* name, TF_Status* status) {
  size_t size = 0;
  char* graph_def = read_file(model(name), &size);
  SessionGroup_Create(on, graph_def, size, status);
  free(graph_def);
}

// Options.
static void options_null_cpuset(TF_Status* s) { SessionGroupOptions_SetCpuset(options, NULL, s); }
static void options_cpuset_of_null(TF_Status* s) { SessionGroupOptions_SetCpuset(NULL, "0", s); }
static void options_bad_cpuset(TF_Status* s) { SessionGroupOptions_SetCpuset(options, "0;3-1", s); }
static void options_cpuset_utf8(TF_Status* s) {
  SessionGroupOptions_SetCpuset(options, kBadUtf8[0], s);
}
static void options_gpu_ids(const int32_t* ids, int32_t n, TF_Status* s) {
  SessionGroupOptions_SetGpuIds(options, ids, n, s);
}
static void options_gpu_ids_of_null(TF_Status* s) {
  SessionGroupOptions_SetGpuIds(NULL, (const int32_t[]){0}, 1, s);
}
static void options_null_gpu_ids(TF_Status* s) { options_gpu_ids(NULL, 1, s); }
static void options_minus_one_gpu_ids(TF_Status* s) {
  options_gpu_ids((const int32_t[]){0}, -1, s);
}
static void options_negative_gpu(TF_Status* s) { options_gpu_ids((const int32_t[]){-1}, 1, s); }
static void options_gpu_twice(TF_Status* s) { options_gpu_ids((const int32_t[]){1, 1}, 2, s); }
static void options_null_policy(TF_Status* s) { SessionGroupOptions_SetPolicy(options, NULL, s); }
static void options_bad_policy(TF_Status* s) { SessionGroupOptions_SetPolicy(options, "best", s); }
static void options_policy_of_null(TF_Status* s) {
  SessionGroupOptions_SetPolicy(NULL, "thread", s);
}
static void options_null_execution(TF_Status* s) {
  SessionGroupOptions_SetExecution(options, NULL, s);
}
static void options_bad_execution(TF_Status* s) {
  SessionGroupOptions_SetExecution(options, "fast", s);
}
static void options_execution_of_null(TF_Status* s) {
  SessionGroupOptions_SetExecution(NULL, "pool", s);
}
static void options_null_kernels(TF_Status* s) { SessionGroupOptions_SetKernels(options, NULL, s); }
static void options_bad_kernels(TF_Status* s) {
  SessionGroupOptions_SetKernels(options, "onednn", s);
}
static void options_kernels_of_null(TF_Status* s) {
  SessionGroupOptions_SetKernels(NULL, "stock", s);
}

// Making a group.
static void new_null(TF_Status* s) { CHECK(NewSessionGroup(NULL, 2, s) == NULL); }
static void new_0(TF_Status* s) { new_group(0, s); }
static void new_negative(TF_Status* s) { new_group(-1, s); }
static void new_100000(TF_Status* s) { new_group(100000, s); }
static void new_null_options(TF_Status* s) {
  CHECK(NewSessionGroupWithOptions(session_options, NULL, s) == NULL);
}
static void new_null_session_options(TF_Status* s) {
  CHECK(NewSessionGroupWithOptions(NULL, options, s) == NULL);
}
static void with(void (*set)(SessionGroupOptions*, TF_Status*), TF_Status* s) {
  SessionGroupOptions* other = NewSessionGroupOptions();
  set(other, s);
  CHECK_OK(s);
  CHECK(NewSessionGroupWithOptions(session_options, other, s) == NULL);
  SessionGroupOptions_Delete(other);
}
static void set_nothing(SessionGroupOptions* o, TF_Status* s) { (void)o, (void)s; }
static void set_mismatch(SessionGroupOptions* o, TF_Status* s) {
  SessionGroupOptions_SetSessionNum(o, 3);
  SessionGroupOptions_SetCpuset(o, "0;0", s);
}
static void set_forbidden_cpu(SessionGroupOptions* o, TF_Status* s) {
  SessionGroupOptions_SetCpuset(o, "0;65535", s);
}
static void set_cpu_local(SessionGroupOptions* o, TF_Status* s) {
  SessionGroupOptions_SetSessionNum(o, 2);
  SessionGroupOptions_SetPolicy(o, "cpu_local", s);
}
static void set_cpuset_and_affinity(SessionGroupOptions* o, TF_Status* s) {
  SessionGroupOptions_SetCpuset(o, "0;0", s);
  SessionGroupOptions_SetThreadPoolAffinity(o, true);
}
static void set_more_sessions_than_cores(SessionGroupOptions* o, TF_Status* s) {
  (void)s;
  SessionGroupOptions_SetSessionNum(o, 1024);
  SessionGroupOptions_SetThreadPoolAffinity(o, true);
}
static void set_no_workers(SessionGroupOptions* o, TF_Status* s) {
  (void)s;
  SessionGroupOptions_SetSessionNum(o, 2);
  SessionGroupOptions_SetWorkerThreads(o, 0);
}
static void set_no_queue(SessionGroupOptions* o, TF_Status* s) {
  (void)s;
  SessionGroupOptions_SetSessionNum(o, 2);
  SessionGroupOptions_SetQueue(o, -5, false);
}
static void set_negative_drain(SessionGroupOptions* o, TF_Status* s) {
  (void)s;
  SessionGroupOptions_SetSessionNum(o, 2);
  SessionGroupOptions_SetDrainTimeout(o, -5);
}
static void set_streams(SessionGroupOptions* o, TF_Status* s) {
  (void)s;
  SessionGroupOptions_SetSessionNum(o, 2);
  SessionGroupOptions_SetMultiStream(o, true);
}
static void set_gpus_without_streams(SessionGroupOptions* o, TF_Status* s) {
  SessionGroupOptions_SetSessionNum(o, 2);
  SessionGroupOptions_SetGpuIds(o, (const int32_t[]){0}, 1, s);
}
static void new_without_number(TF_Status* s) { with(set_nothing, s); }
static void new_without_gpus(TF_Status* s) { with(set_streams, s); }
static void new_gpus_without_streams(TF_Status* s) { with(set_gpus_without_streams, s); }
static void new_mismatch(TF_Status* s) { with(set_mismatch, s); }
static void new_forbidden_cpu(TF_Status* s) { with(set_forbidden_cpu, s); }
static void new_cpu_local(TF_Status* s) { with(set_cpu_local, s); }
static void new_cpuset_and_affinity(TF_Status* s) { with(set_cpuset_and_affinity, s); }
static void new_more_than_cores(TF_Status* s) { with(set_more_sessions_than_cores, s); }
static void new_no_workers(TF_Status* s) { with(set_no_workers, s); }
static void new_no_queue(TF_Status* s) { with(set_no_queue, s); }
static void new_negative_drain(TF_Status* s) { with(set_negative_drain, s); }
static void new_with_target(TF_Status* s) {
  TF_SessionOptions* other = TF_NewSessionOptions();
  TF_SetTarget(other, "grpc://elsewhere:1");
  CHECK(NewSessionGroup(other, 2, s) == NULL);
  TF_DeleteSessionOptions(other);
}

static void with_config(const char* config, size_t size, TF_Status* s) {
  TF_SessionOptions* other = TF_NewSessionOptions();
  TF_SetConfig(other, config, size, s);
  CHECK_OK(s);
  CHECK(NewSessionGroup(other, 2, s) == NULL);
  TF_DeleteSessionOptions(other);
}
static void new_negative_threads(TF_Status* s) {
  const char config[] = "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";  // intra_op -1
  with_config(config, sizeof(config) - 1, s);
}
static void new_20000_threads(TF_Status* s) {
  with_config("\x28\xa0\x9c\x01", 4, s);  // inter_op_parallelism_threads 20000
}
static void new_named_pool(TF_Status* s) {
  with_config("\x62\x03\x12\x01p", 5, s);  // session_inter_op_thread_pool {global_name "p"}
}

// Graphs.
static void create_null_group(TF_Status* s) { SessionGroup_Create(NULL, "x", 1, s); }
static void create_null_graph(TF_Status* s) { SessionGroup_Create(fresh, NULL, 1, s); }
static void create_negative_size(TF_Status* s) { SessionGroup_Create(fresh, "x", (size_t)-1, s); }
static void create_not_a_graph(TF_Status* s) {
  SessionGroup_Create(fresh, "not a GraphDef", 14, s);
}
// Address space alone: it is refused before it is looked at.
static void create_of_size(size_t size, TF_Status* s) {
  void* nothing = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(nothing != MAP_FAILED);
  SessionGroup_Create(fresh, nothing, size, s);
  CHECK(munmap(nothing, size) == 0);
}
static void create_2_gib(TF_Status* s) { create_of_size((size_t)1 << 31, s); }
static void create_beyond_4_gib(TF_Status* s) { create_of_size(((size_t)1 << 32) + 100, s); }
static void create_empty(TF_Status* s) { SessionGroup_Create(fresh, "", 0, s); }
static void create_unknown_op(TF_Status* s) {
  const char graph_def[] = "\x0a\x0d\x0a\x01n\x12\x08NoSuchOp";
  SessionGroup_Create(fresh, graph_def, sizeof(graph_def) - 1, s);
}
static void create_twice(TF_Status* s) { create(group, "mlp_frozen.pb", s); }
static void create_closed(TF_Status* s) { create(closed, "mlp_frozen.pb", s); }
static void extend_null_group(TF_Status* s) { SessionGroup_Extend(NULL, "x", 1, s); }
static void extend_null_graph(TF_Status* s) { SessionGroup_Extend(group, NULL, 1, s); }
static void extend_not_a_graph(TF_Status* s) {
  SessionGroup_Extend(group, "not a GraphDef", 14, s);
}

// SavedModels.
static void load_null_session_options(TF_Status* s) {
  CHECK(LoadSessionGroupFromSavedModel(NULL, NULL, kDir, kServe, 1, options, NULL, s) == NULL);
}
static void load_null_options(TF_Status* s) {
  CHECK(LoadSessionGroupFromSavedModel(session_options, NULL, kDir, kServe, 1, NULL, NULL, s) ==
        NULL);
}
static void load_null_dir(TF_Status* s) { load(NULL, kServe, 1, s); }
static void load_bad_utf8(TF_Status* s) { load(kBadUtf8[0], kServe, 1, s); }
static void load_null_tags(TF_Status* s) { load(kDir, NULL, 1, s); }
static void load_null_tag(TF_Status* s) { load(kDir, kNullName, 1, s); }
static void load_negative_tags(TF_Status* s) { load(kDir, kServe, -1, s); }
static void load_missing(TF_Status* s) { load(kDir, kServe, 1, s); }
static void load_empty(TF_Status* s) { load(in_temporary("empty"), kServe, 1, s); }
static void load_truncated_graph(TF_Status* s) { load(in_temporary("truncated"), kServe, 1, s); }
static void load_truncated_variables(TF_Status* s) {
  load(in_temporary("variables"), kServe, 1, s);
}
static void load_no_such_tag(TF_Status* s) {
  const char* const tags[] = {"train"};
  load(model("strings"), tags, 1, s);
}
static void load_no_tags(TF_Status* s) { load(model("strings"), NULL, 0, s); }
static void load_full_buffer(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBufferFromString("full", 4);
  CHECK(LoadSessionGroupFromSavedModel(session_options, NULL, model("strings"), kServe, 1, options,
                                       buffer, s) == NULL);
  CHECK(buffer->length == 4);
  TF_DeleteBuffer(buffer);
}
static void load_bad_run_options(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBufferFromString("\xff", 1);
  CHECK(LoadSessionGroupFromSavedModel(session_options, buffer, model("strings"), kServe, 1,
                                       options, NULL, s) == NULL);
  TF_DeleteBuffer(buffer);
}

// Running by names.
static void run_null_group(TF_Status* s) { run(NULL, kWord, &word, 1, kY, 1, NULL, 0, s); }
static void run_before_create(TF_Status* s) { run(fresh, kWord, &word, 1, kY, 1, NULL, 0, s); }
static void run_after_close(TF_Status* s) { run(closed, kWord, &word, 1, kY, 1, NULL, 0, s); }
static void run_null_names(TF_Status* s) { run(group, NULL, &word, 1, kY, 1, NULL, 0, s); }
static void run_null_name(TF_Status* s) { run(group, kNullName, &word, 1, kY, 1, NULL, 0, s); }
static void run_null_tensors(TF_Status* s) { run(group, kWord, NULL, 1, kY, 1, NULL, 0, s); }
static void run_null_tensor(TF_Status* s) {
  TF_Tensor* none = NULL;
  run(group, kWord, &none, 1, kY, 1, NULL, 0, s);
}
static void run_null_fetches(TF_Status* s) { run(group, kWord, &word, 1, NULL, 1, NULL, 0, s); }
static void run_null_outputs(TF_Status* s) {
  SessionGroup_Run(group, NULL, kWord, &word, 1, kY, NULL, 1, NULL, 0, NULL, s);
}
static void run_null_targets(TF_Status* s) { run(group, kWord, &word, 1, kY, 1, NULL, 1, s); }
static void run_null_target(TF_Status* s) { run(group, kWord, &word, 1, kY, 1, kNullName, 1, s); }
static void run_negative_inputs(TF_Status* s) { run(group, kWord, &word, -1, kY, 1, NULL, 0, s); }
static void run_negative_outputs(TF_Status* s) { run(group, kWord, &word, 1, kY, -1, NULL, 0, s); }
static void run_negative_targets(TF_Status* s) { run(group, kWord, &word, 1, kY, 1, NULL, -2, s); }
static void run_feed_utf8(TF_Status* s) { run(group, kBadUtf8, &word, 1, kY, 1, NULL, 0, s); }
static void run_fetch_utf8(TF_Status* s) { run(group, kWord, &word, 1, kBadUtf8, 1, NULL, 0, s); }
static void run_nothing(TF_Status* s) { run(group, NULL, NULL, 0, NULL, 0, NULL, 0, s); }
static void run_unknown_feed(TF_Status* s) {
  const char* const names[] = {"wrod"};
  run(group, names, &word, 1, kY, 1, NULL, 0, s);
}
static void run_unknown_fetch(TF_Status* s) {
  const char* const names[] = {"z:0"};
  run(group, kWord, &word, 1, names, 1, NULL, 0, s);
}
static void run_unknown_output(TF_Status* s) {
  const char* const names[] = {"y:3"};
  run(group, kWord, &word, 1, names, 1, NULL, 0, s);
}
static void run_unknown_target(TF_Status* s) {
  const char* const names[] = {"decrease"};
  run(group, kWord, &word, 1, kY, 1, names, 1, s);
}
static void run_duplicate_feed(TF_Status* s) {
  const char* const names[] = {"word", "word"};
  TF_Tensor* const tensors[] = {word, word};
  run(group, names, tensors, 2, kY, 1, NULL, 0, s);
}
static void run_missing_feed(TF_Status* s) { run(group, NULL, NULL, 0, kY, 1, NULL, 0, s); }
static void run_wrong_dtype(TF_Status* s) { run(group, kWord, &number, 1, kY, 1, NULL, 0, s); }
static void run_wrong_shape(TF_Status* s) {
  const char* const names[] = {"x"};
  run(mlp, names, &number, 1, kY, 1, NULL, 0, s);
}
static void run_bad_options(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBufferFromString("\xff", 1);
  TF_Tensor* y = NULL;
  SessionGroup_Run(group, buffer, kWord, &word, 1, kY, &y, 1, NULL, 0, NULL, s);
  CHECK(y == NULL);
  TF_DeleteBuffer(buffer);
}
static void warm_up(SessionGroup* on, const char* fetch, TF_Status* s) {
  const char* const fetches[] = {fetch};
  SessionGroup_WarmUp(on, kWord, &word, 1, fetches, 1, NULL, 0, s);
}
static void warm_up_null_group(TF_Status* s) { warm_up(NULL, "y", s); }
static void warm_up_unknown_fetch(TF_Status* s) { warm_up(group, "z", s); }
static void warm_up_closed(TF_Status* s) { warm_up(closed, "y", s); }
static void run_on_null_group(TF_Status* s) {
  TF_Tensor* y = NULL;
  SessionGroup_RunOn(NULL, 0, NULL, kWord, &word, 1, kY, &y, 1, NULL, 0, NULL, s);
}

// Running with TF_SessionRun's parameters.
static void session_run(SessionGroup* on, const TF_Output* fetch, const TF_Operation* const* target,
                        TF_Status* s) {
  const TF_Output feed = {TF_GraphOperationByName(graph, "word"), 0};
  TF_Tensor* y = NULL;
  SessionGroup_SessionRun(on, NULL, &feed, &word, 1, fetch, &y, 1, target, target != NULL, NULL, s);
  CHECK(y == NULL);
}
static TF_Output output(const char* name, int index) {
  const TF_Output result = {name ? TF_GraphOperationByName(graph, name) : NULL, index};
  return result;
}
static void session_run_null_group(TF_Status* s) {
  const TF_Output y = output("y", 0);
  session_run(NULL, &y, NULL, s);
}
static void session_run_null_fetches(TF_Status* s) { session_run(group, NULL, NULL, s); }
static void session_run_null_operation(TF_Status* s) {
  const TF_Output y = output(NULL, 0);
  session_run(group, &y, NULL, s);
}
static void session_run_index(TF_Status* s) {
  const TF_Output y = output("y", 7);
  session_run(group, &y, NULL, s);
}
static void session_run_negative_index(TF_Status* s) {
  const TF_Output y = output("y", -1);
  session_run(group, &y, NULL, s);
}
static void session_run_null_target(TF_Status* s) {
  const TF_Output y = output("y", 0);
  const TF_Operation* const none = NULL;
  session_run(group, &y, &none, s);
}
static void session_run_other_graph(TF_Status* s) {
  const TF_Output y = output("word", 0);  // not a node of this group's graph
  session_run(mlp, &y, NULL, s);
}

// Statistics.
static void stats_with_size(SessionGroup* of, int32_t session, size_t size, TF_Status* s) {
  SessionGroupStats stats;
  memset(&stats, 0x55, sizeof(stats));
  const SessionGroupStats before = stats;
  stats.struct_size = size;
  SessionGroup_GetStats(of, session, &stats, s);
  CHECK(memcmp(&stats.runs, &before.runs, sizeof(stats) - sizeof(stats.struct_size)) == 0);
}
static void stats_of_null(TF_Status* s) { stats_with_size(NULL, 0, sizeof(SessionGroupStats), s); }
static void stats_of_no_session(TF_Status* s) {
  stats_with_size(group, 2, sizeof(SessionGroupStats), s);
}
static void stats_of_negative(TF_Status* s) {
  stats_with_size(group, -1, sizeof(SessionGroupStats), s);
}
static void stats_without_size(TF_Status* s) { stats_with_size(group, 0, 0, s); }
static void stats_null(TF_Status* s) { SessionGroup_GetStats(group, 0, NULL, s); }
static void quantile_of_null(TF_Status* s) {
  CHECK(SessionGroup_LatencyQuantile(NULL, 0, 0.5, s) == 0);
}
static void quantile_beyond_1(TF_Status* s) {
  CHECK(SessionGroup_LatencyQuantile(group, 0, 1.5, s) == 0);
}
static void metrics_of_null(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBuffer();
  SessionGroup_MetricsText(NULL, buffer, s);
  CHECK(buffer->data == NULL);
  TF_DeleteBuffer(buffer);
}
static void metrics_to_null(TF_Status* s) { SessionGroup_MetricsText(group, NULL, s); }
static void describe_of_null(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBuffer();
  SessionGroup_Describe(NULL, buffer, s);
  CHECK(buffer->data == NULL);
  TF_DeleteBuffer(buffer);
}
static void describe_to_full(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBufferFromString("full", 4);
  SessionGroup_Describe(group, buffer, s);
  CHECK(buffer->length == 4);
  TF_DeleteBuffer(buffer);
}

static void explain_of_null(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBuffer();
  SessionGroup_Explain(NULL, buffer, s);
  CHECK(buffer->data == NULL);
  TF_DeleteBuffer(buffer);
}
static void explain_to_full(TF_Status* s) {
  TF_Buffer* buffer = TF_NewBufferFromString("full", 4);
  SessionGroup_Explain(group, buffer, s);
  CHECK(buffer->length == 4);
  TF_DeleteBuffer(buffer);
}

static void all_metrics_to_null(TF_Status* s) { SessionGroup_AllMetricsText(NULL, s); }
static void describe_all_to_null(TF_Status* s) { SessionGroup_DescribeAll(NULL, s); }
static void explain_all_to_null(TF_Status* s) { SessionGroup_ExplainAll(NULL, s); }

// The rest.
static void session_of_null(TF_Status* s) { CHECK(SessionGroup_NewCppSession(NULL, 0, s) == NULL); }
static void part_of_null(TF_Status* s) { CHECK(SessionGroup_NewCppPart(NULL, 0, s) == NULL); }
static void group_of_null(TF_Status* s) { CHECK(SessionGroup_FromCppSession(NULL, s) == NULL); }
static void devices_of_null(TF_Status* s) { CHECK(SessionGroup_ListDevices(NULL, s) == NULL); }
static void devices_of_closed(TF_Status* s) { CHECK(SessionGroup_ListDevices(closed, s) == NULL); }
static void close_null(TF_Status* s) { SessionGroup_Close(NULL, s); }

static const struct {
  const char* name;
  void (*call)(TF_Status*);
  TF_Code code;
  const char* says;  // a part of the message
} kRows[] = {
#define ROW(call, code, says) {#call, call, code, says}
    ROW(options_null_cpuset, TF_INVALID_ARGUMENT, "cpuset is NULL"),
    ROW(options_cpuset_of_null, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(options_bad_cpuset, TF_INVALID_ARGUMENT, "entry 1 (\"3-1\"): has the reversed range"),
    ROW(options_cpuset_utf8, TF_INVALID_ARGUMENT, "cpuset is not valid UTF-8"),
    ROW(options_gpu_ids_of_null, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(options_null_gpu_ids, TF_INVALID_ARGUMENT, "gpu_ids is NULL"),
    ROW(options_minus_one_gpu_ids, TF_INVALID_ARGUMENT, "the number of gpu_ids is -1"),
    ROW(options_negative_gpu, TF_INVALID_ARGUMENT, "gpu_ids has -1"),
    ROW(options_gpu_twice, TF_INVALID_ARGUMENT, "gpu_ids has 1 twice"),
    ROW(options_null_policy, TF_INVALID_ARGUMENT, "name is NULL"),
    ROW(options_bad_policy, TF_INVALID_ARGUMENT, "it is one of auto, round_robin"),
    ROW(options_policy_of_null, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(options_null_kernels, TF_INVALID_ARGUMENT, "name is NULL"),
    ROW(options_bad_kernels, TF_INVALID_ARGUMENT, "it is one of auto, stock"),
    ROW(options_kernels_of_null, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(options_null_execution, TF_INVALID_ARGUMENT, "name is NULL"),
    ROW(options_bad_execution, TF_INVALID_ARGUMENT, "it is one of auto"),
    ROW(options_execution_of_null, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(new_null, TF_INVALID_ARGUMENT, "session_options is NULL"),
    ROW(new_0, TF_INVALID_ARGUMENT, "session_num is 0: it must be 1 to 1024"),
    ROW(new_negative, TF_INVALID_ARGUMENT, "session_num is -1"),
    ROW(new_100000, TF_INVALID_ARGUMENT, "session_num is 100000"),
    ROW(new_null_options, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(new_null_session_options, TF_INVALID_ARGUMENT, "session_options is NULL"),
    ROW(new_without_number, TF_INVALID_ARGUMENT, "session_num is not set"),
    ROW(new_mismatch, TF_INVALID_ARGUMENT, "has 2 entries, but the group has 3 sessions"),
    ROW(new_without_gpus, TF_FAILED_PRECONDITION, "without GPU support"),
    ROW(new_gpus_without_streams, TF_INVALID_ARGUMENT, "without multi_stream"),
    ROW(new_forbidden_cpu, TF_INVALID_ARGUMENT, "may not use CPU 65535"),
    ROW(new_cpu_local, TF_INVALID_ARGUMENT, "cpu_local needs CPUs"),
    ROW(new_cpuset_and_affinity, TF_INVALID_ARGUMENT, "set one of them"),
    ROW(new_more_than_cores, TF_INVALID_ARGUMENT, "physical cores"),
    ROW(new_no_workers, TF_INVALID_ARGUMENT, "worker threads is 0"),
    ROW(new_no_queue, TF_INVALID_ARGUMENT, "capacity is -5"),
    ROW(new_negative_drain, TF_INVALID_ARGUMENT, "drain timeout is -5 ms"),
    ROW(new_negative_threads, TF_INVALID_ARGUMENT, "intra_op_parallelism_threads is -1"),
    ROW(new_20000_threads, TF_INVALID_ARGUMENT, "inter_op_parallelism_threads is 20000"),
    ROW(new_named_pool, TF_INVALID_ARGUMENT, "leave the name out"),
    ROW(new_with_target, TF_INVALID_ARGUMENT, "leave the target empty"),
    ROW(create_null_group, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(create_null_graph, TF_INVALID_ARGUMENT, "graph_def is NULL"),
    ROW(create_negative_size, TF_INVALID_ARGUMENT, "size of graph_def"),
    ROW(create_not_a_graph, TF_INVALID_ARGUMENT, "not a serialised GraphDef"),
    ROW(create_2_gib, TF_INVALID_ARGUMENT, "less than 2 GiB"),
    ROW(create_beyond_4_gib, TF_INVALID_ARGUMENT, "less than 2 GiB"),
    ROW(create_empty, TF_INVALID_ARGUMENT, "no nodes"),
    ROW(create_unknown_op, TF_NOT_FOUND, "NoSuchOp"),
    ROW(create_twice, TF_ALREADY_EXISTS, "has a graph already"),
    ROW(create_closed, TF_FAILED_PRECONDITION, "closed"),
    ROW(extend_null_group, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(extend_null_graph, TF_INVALID_ARGUMENT, "graph_def is NULL"),
    ROW(extend_not_a_graph, TF_INVALID_ARGUMENT, "not a serialised GraphDef"),
    ROW(load_null_session_options, TF_INVALID_ARGUMENT, "session_options is NULL"),
    ROW(load_null_options, TF_INVALID_ARGUMENT, "options is NULL"),
    ROW(load_null_dir, TF_INVALID_ARGUMENT, "export_dir is NULL"),
    ROW(load_bad_utf8, TF_INVALID_ARGUMENT, "export_dir is not valid UTF-8"),
    ROW(load_null_tags, TF_INVALID_ARGUMENT, "tags is NULL"),
    ROW(load_null_tag, TF_INVALID_ARGUMENT, "tags[0] is NULL"),
    ROW(load_negative_tags, TF_INVALID_ARGUMENT, "number of tags is -1"),
    ROW(load_missing, TF_NOT_FOUND, "/nonexistent/model"),
    ROW(load_empty, TF_NOT_FOUND, "/empty"),
    ROW(load_truncated_graph, TF_OUT_OF_RANGE, "/truncated: reading it"),
    ROW(load_truncated_variables, TF_OUT_OF_RANGE, "/variables: restoring its variables"),
    ROW(load_no_such_tag, TF_NOT_FOUND, "train"),
    ROW(load_no_tags, TF_NOT_FOUND, "tags"),
    ROW(load_full_buffer, TF_INVALID_ARGUMENT, "meta_graph_def is not empty"),
    ROW(load_bad_run_options, TF_INVALID_ARGUMENT, "not a serialised RunOptions"),
    ROW(run_null_group, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(run_before_create, TF_FAILED_PRECONDITION, "SessionGroup_Create"),
    ROW(run_after_close, TF_FAILED_PRECONDITION, "closed"),
    ROW(run_null_names, TF_INVALID_ARGUMENT, "input_names is NULL"),
    ROW(run_null_name, TF_INVALID_ARGUMENT, "input_names[0] is NULL"),
    ROW(run_null_tensors, TF_INVALID_ARGUMENT, "inputs is NULL"),
    ROW(run_null_tensor, TF_INVALID_ARGUMENT, "inputs[0] is NULL"),
    ROW(run_null_fetches, TF_INVALID_ARGUMENT, "output_names is NULL"),
    ROW(run_null_outputs, TF_INVALID_ARGUMENT, "outputs is NULL"),
    ROW(run_null_targets, TF_INVALID_ARGUMENT, "target_names is NULL"),
    ROW(run_null_target, TF_INVALID_ARGUMENT, "target_names[0] is NULL"),
    ROW(run_negative_inputs, TF_INVALID_ARGUMENT, "number of input_names is -1"),
    ROW(run_negative_outputs, TF_INVALID_ARGUMENT, "number of output_names is -1"),
    ROW(run_negative_targets, TF_INVALID_ARGUMENT, "number of target_names is -2"),
    ROW(run_feed_utf8, TF_INVALID_ARGUMENT, "input_names[0] is not valid UTF-8"),
    ROW(run_fetch_utf8, TF_INVALID_ARGUMENT, "output_names[0] is not valid UTF-8"),
    ROW(run_nothing, TF_INVALID_ARGUMENT, "target"),
    ROW(run_unknown_feed, TF_INVALID_ARGUMENT, "wrod"),
    ROW(run_unknown_fetch, TF_INVALID_ARGUMENT, "z:0"),
    ROW(run_unknown_output, TF_OUT_OF_RANGE, "the node has only output 0"),
    ROW(run_unknown_target, TF_NOT_FOUND, "decrease"),
    ROW(run_duplicate_feed, TF_INVALID_ARGUMENT, "word:0 twice"),
    ROW(run_missing_feed, TF_INVALID_ARGUMENT, "must feed a value for placeholder tensor 'word'"),
    ROW(run_wrong_dtype, TF_INVALID_ARGUMENT, "string"),
    ROW(run_wrong_shape, TF_INVALID_ARGUMENT, "ndims must be >= 2"),
    ROW(run_bad_options, TF_INVALID_ARGUMENT, "not a serialised RunOptions"),
    ROW(warm_up_null_group, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(warm_up_unknown_fetch, TF_INVALID_ARGUMENT, "z:0"),
    ROW(warm_up_closed, TF_FAILED_PRECONDITION, "closed"),
    ROW(run_on_null_group, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(session_run_null_group, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(session_run_null_fetches, TF_INVALID_ARGUMENT, "outputs is NULL"),
    ROW(session_run_null_operation, TF_INVALID_ARGUMENT, "outputs[0].oper is NULL"),
    ROW(session_run_index, TF_OUT_OF_RANGE, "output 7 of operation \"y\", which has 1"),
    ROW(session_run_negative_index, TF_OUT_OF_RANGE, "output -1"),
    ROW(session_run_null_target, TF_INVALID_ARGUMENT, "target_opers[0] is NULL"),
    ROW(session_run_other_graph, TF_INVALID_ARGUMENT, "word"),
    ROW(stats_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(stats_of_no_session, TF_OUT_OF_RANGE, "no session 2: the group has 2"),
    ROW(stats_of_negative, TF_OUT_OF_RANGE, "no session -1"),
    ROW(stats_without_size, TF_INVALID_ARGUMENT, "set it to sizeof(SessionGroupStats)"),
    ROW(stats_null, TF_INVALID_ARGUMENT, "stats is NULL"),
    ROW(quantile_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(quantile_beyond_1, TF_INVALID_ARGUMENT, "1.5 is not a quantile"),
    ROW(metrics_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(metrics_to_null, TF_INVALID_ARGUMENT, "text is NULL"),
    ROW(describe_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(describe_to_full, TF_INVALID_ARGUMENT, "json is not empty"),
    ROW(all_metrics_to_null, TF_INVALID_ARGUMENT, "text is NULL"),
    ROW(describe_all_to_null, TF_INVALID_ARGUMENT, "json is NULL"),
    ROW(explain_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(explain_to_full, TF_INVALID_ARGUMENT, "json is not empty"),
    ROW(explain_all_to_null, TF_INVALID_ARGUMENT, "json is NULL"),
    ROW(session_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(part_of_null, TF_INVALID_ARGUMENT, "session is NULL"),
    ROW(group_of_null, TF_INVALID_ARGUMENT, "session is NULL"),
    ROW(devices_of_null, TF_INVALID_ARGUMENT, "group is NULL"),
    ROW(devices_of_closed, TF_FAILED_PRECONDITION, "closed"),
    ROW(close_null, TF_INVALID_ARGUMENT, "group is NULL"),
#undef ROW
};

// Without a status there is nothing to report in: the functions do nothing, but they return.
static void without_a_status(void) {
  CHECK(NewSessionGroup(session_options, 2, NULL) == NULL);
  CHECK(NewSessionGroupWithOptions(session_options, options, NULL) == NULL);
  CHECK(LoadSessionGroupFromSavedModel(session_options, NULL, model("strings"), kServe, 1, options,
                                       NULL, NULL) == NULL);
  TF_Tensor* y = NULL;
  SessionGroup_Run(group, NULL, kWord, &word, 1, kY, &y, 1, NULL, 0, NULL, NULL);
  SessionGroup_RunOn(group, 0, NULL, kWord, &word, 1, kY, &y, 1, NULL, 0, NULL, NULL);
  SessionGroup_SessionRun(group, NULL, NULL, NULL, 0, NULL, NULL, 0, NULL, 0, NULL, NULL);
  CHECK(y == NULL);
  SessionGroup_Create(fresh, "", 0, NULL);
  SessionGroup_Extend(fresh, "", 0, NULL);
  SessionGroup_Close(group, NULL);
  CHECK(SessionGroup_ListDevices(group, NULL) == NULL);
  SessionGroupOptions_SetCpuset(options, "0", NULL);
  SessionGroupOptions_SetPolicy(options, "thread", NULL);
  SessionGroupOptions_SetExecution(options, "pool", NULL);
  SessionGroupOptions_SetSessionNum(NULL, 2);
  SessionGroupOptions_SetWorkerThreads(NULL, 2);
  SessionGroupOptions_SetQueue(NULL, 2, true);
  SessionGroupOptions_SetDrainTimeout(NULL, 2);
  SessionGroupOptions_SetThreadPoolAffinity(NULL, true);
  SessionGroupOptions_SetMultiStream(NULL, true);
  SessionGroupOptions_SetGpuIds(options, NULL, 0, NULL);
  SessionGroup_GetStats(group, 0, NULL, NULL);
  CHECK(SessionGroup_LatencyQuantile(group, 0, 0.5, NULL) == 0);
  SessionGroup_MetricsText(group, NULL, NULL);
  SessionGroup_Describe(group, NULL, NULL);
  SessionGroup_AllMetricsText(NULL, NULL);
  SessionGroup_DescribeAll(NULL, NULL);
  SessionGroup_Explain(group, NULL, NULL);
  SessionGroup_ExplainAll(NULL, NULL);
  SessionGroup_RegisterTarget(NULL);
  CHECK(SessionGroup_NewCppSession(group, 0, NULL) == NULL);
  CHECK(SessionGroup_NewCppPart(NULL, 0, NULL) == NULL);
  CHECK(SessionGroup_FromCppSession(NULL, NULL) == NULL);
}

static void shell(const char* command) { CHECK(system(command) == 0); }

static void set_up(TF_Status* status) {
  session_options = TF_NewSessionOptions();
  options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 2);
  group = initialised_group(2);
  closed = initialised_group(2);
  SessionGroup_Close(closed, status);
  fresh = NewSessionGroup(session_options, 2, status);
  mlp = NewSessionGroup(session_options, 2, status);
  create(mlp, "mlp_frozen.pb", status);
  CHECK_OK(status);
  const char* const words[] = {"a", "b"};
  word = strings(words, 2);
  number = scalar(1.0f);

  size_t size = 0;
  char* graph_def = read_file(model("init_op.pb"), &size);
  TF_Buffer* buffer = TF_NewBufferFromString(graph_def, size);
  graph = TF_NewGraph();
  TF_ImportGraphDefOptions* import = TF_NewImportGraphDefOptions();
  TF_GraphImportGraphDef(graph, buffer, import, status);
  CHECK_OK(status);
  TF_DeleteImportGraphDefOptions(import);
  TF_DeleteBuffer(buffer);
  free(graph_def);

  CHECK(mkdtemp(temporary) != NULL);
  CHECK(setenv("T", temporary, 1) == 0);
  shell("mkdir \"$T/empty\"");
  shell("cp -rL \"$MODELS/strings\" \"$T/truncated\"");
  shell("truncate -s 1000 \"$T/truncated/saved_model.pb\"");
  shell("cp -rL \"$MODELS/wide_deep\" \"$T/variables\"");
  shell("truncate -s 10000 \"$T\"/variables/variables/variables.data-*");
}

int main(void) {
  TF_Status* status = TF_NewStatus();
  set_up(status);
  int wrong = 0;
  const int rows = (int)(sizeof(kRows) / sizeof(kRows[0]));
  for (int i = 0; i < rows; ++i) {
    TF_SetStatus(status, TF_OK, "");
    kRows[i].call(status);
    if (TF_GetCode(status) != kRows[i].code || !strstr(TF_Message(status), kRows[i].says)) {
      printf("%s: expected %d with \"%s\", got %d: %s\n", kRows[i].name, (int)kRows[i].code,
             kRows[i].says, (int)TF_GetCode(status), TF_Message(status));
      ++wrong;
    }
  }
  without_a_status();

  // After all that, the group serves on.
  TF_Tensor* y = NULL;
  SessionGroup_Run(group, NULL, kWord, &word, 1, kY, &y, 1, NULL, 0, NULL, status);
  CHECK_OK(status);
  CHECK(float_at(y, 0) == 111.25f);
  TF_DeleteTensor(y);

  SessionGroup_Delete(group);
  SessionGroup_Delete(closed);
  SessionGroup_Delete(fresh);
  SessionGroup_Delete(mlp);
  TF_DeleteTensor(word);
  TF_DeleteTensor(number);
  TF_DeleteGraph(graph);
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
  shell("rm -r \"$T\"");
  printf("%d mistakes, %d with another status than expected\n", rows, wrong);
  return wrong != 0;
}
