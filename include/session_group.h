/*
 * N TensorFlow sessions in one process, one copy of the model, every core busy.
 *
 * A SessionGroup wraps N sessions of the stock TensorFlow runtime. They share variables and lookup
 * tables, which are loaded or initialised once; each has its own inter-op and intra-op threads, and
 * may have its own CPUs. SessionGroup_Run() sends a request to one of them. NewSessionGroup()
 * replaces TF_NewSession(), LoadSessionGroupFromSavedModel() TF_LoadSessionFromSavedModel(), and
 * SessionGroup_Run() or SessionGroup_SessionRun() TF_SessionRun().
 *
 * Conventions
 *   - Types of TensorFlow's C API (TF_Status, TF_Tensor, TF_Buffer, TF_SessionOptions, TF_Output) are
 *     used as they are; tensorflow/c/c_api.h documents them.
 *   - Every function that can fail takes a TF_Status* last, sets it to TF_OK or to an error whose
 *     message says what to change, and must not be given NULL for it: without a status to report in,
 *     it does nothing. Nothing aborts, and no exception leaves the library. (TensorFlow itself ends
 *     the process where the system refuses it a thread or memory for its own bookkeeping; a group
 *     therefore refuses numbers of threads that are out of any proportion.)
 *   - Out-parameters are written on success only. A function that returns a pointer returns NULL on
 *     failure.
 *   - Strings are zero-terminated UTF-8. An array comes with its length, and may be NULL where that
 *     is 0. Every other pointer must not be NULL unless the function says so; NULL is an error with
 *     a message, TF_INVALID_ARGUMENT.
 *
 * Ownership
 *   - The caller owns what a New... or Load... function returns and gives it back to the matching
 *     ..._Delete function, once. Deleting NULL is allowed.
 *   - Arguments stay the caller's and are not used after the call. The one exception is the context of
 *     SessionGroupOptions_SetPolicyFn(). The caller owns the tensors that it fetches.
 *   - A tensor that is fed must not change while the call runs.
 *
 * Threads
 *   - Any number of threads may call functions on a SessionGroup at the same time, except
 *     SessionGroup_Delete(). Use SessionGroupOptions from one thread at a time.
 *   - Before a process ends by exit() or by returning from main(), close its groups, which lets requests
 *     finish or cancels them, or end it with _exit(). TensorFlow's destructors take away what running
 *     kernels use; stock sessions have the same problem. Open, idle groups do no harm.
 *   - Threads stay in the parent when a process forks: in the child, groups made before the fork fail
 *     with TF_FAILED_PRECONDITION, and deleting one frees nothing. TensorFlow itself does not support
 *     forking once it has started threads: start children with exec.
 *
 * The sessions of a group share resource variables, reference variables (VariableV2), lookup tables and
 * everything else that TensorFlow keeps under a name in a device's resource manager. A table of the main
 * graph without a shared_name is shared under its node's name.
 *
 * Each session keeps to itself: the state inside a kernel, such as a random generator with a fixed seed or
 * an iterator (iterators with a shared_name are refused); tables without a shared_name in function bodies;
 * and tensors kept by GetSessionHandle, which SessionGroup_RunOn() must send back to their session. Groups
 * share nothing with each other or with other sessions of the process.
 *
 * Environment, read when a group is made
 *   SESSION_GROUP_CPUSET: CPUs for each session, as in SessionGroupOptions_SetCpuset(), which wins.
 *   SET_SESSION_THREAD_POOL_AFFINITY: 1 gives each session cores of its own, as in
 *     SessionGroupOptions_SetThreadPoolAffinity(), which wins. A cpuset wins over it.
 *   SESSION_GROUP_KEPT_BYTES: how much memory of large tensors the process keeps for the next request.
 *     The default is an eighth of its memory; 0 keeps none. The group made last decides.
 *   ENABLE_MPS, CONTEXTS_COUNT_PER_GPU: see SessionGroupOptions_SetMultiStream().
 *
 * Threads are named sg<group>.s<session>-inter, -intra and -work, for a session's inter-op pool, its
 * intra-op pool and its workers; `ps -L` and /proc/<pid>/task show the names.
 *
 * A complete program:
 *
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *     #include <string.h>
 *
 *     #include "session_group.h"
 *
 *     static void check(const TF_Status* status, const char* what) {
 *       if (TF_GetCode(status) == TF_OK) return;
 *       fprintf(stderr, "%s: %s\n", what, TF_Message(status));
 *       exit(1);
 *     }
 *
 *     // Usage: example SAVED_MODEL_DIR, for a model that splits text into words.
 *     int main(int argc, char** argv) {
 *       if (argc != 2) return 2;
 *       TF_Status* status = TF_NewStatus();
 *       TF_SessionOptions* session_options = TF_NewSessionOptions();
 *       SessionGroupOptions* options = NewSessionGroupOptions();
 *       SessionGroupOptions_SetSessionNum(options, 4);
 *
 *       const char* const tags[] = {"serve"};
 *       SessionGroup* group = LoadSessionGroupFromSavedModel(session_options, NULL, argv[1], tags, 1,
 *                                                            options, NULL, status);
 *       check(status, "load");
 *
 *       TF_Tensor* text = TF_AllocateTensor(TF_STRING, (const int64_t[]){1}, 1, sizeof(TF_TString));
 *       TF_TString* string = TF_TensorData(text);
 *       TF_StringInit(string);
 *       TF_StringCopy(string, "to be or not to be", strlen("to be or not to be"));
 *
 *       const char* const feeds[] = {"serving_default_text:0"};
 *       const char* const fetches[] = {"PartitionedCall:1"};
 *       TF_Tensor* words = NULL;
 *       SessionGroup_Run(group, NULL, feeds, &text, 1, fetches, &words, 1, NULL, 0, NULL, status);
 *       check(status, "run");
 *       printf("%d different words\n", (int)TF_Dim(words, 0));
 *
 *       TF_DeleteTensor(words);
 *       TF_DeleteTensor(text);
 *       SessionGroup_Delete(group);
 *       SessionGroupOptions_Delete(options);
 *       TF_DeleteSessionOptions(session_options);
 *       TF_DeleteStatus(status);
 *       return 0;
 *     }
 */


#ifndef SESSION_GROUP_H_
#define SESSION_GROUP_H_

/* Generated with cbindgen:0.29.4 */

// Generated by cbindgen from src/ffi. Change it there, then run `make header`.

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include "tensorflow/c/c_api.h"

// A set of feeds, fetches and targets, prepared for all sessions of a group; the counterpart of
// TensorFlow's `MakeCallable`. May be used by many threads at a time, and dropped before or after
// the group.
typedef struct SessionGroupCallable SessionGroupCallable;

// How to make a group. What is not set is left to the environment, and then to defaults.
typedef struct SessionGroupOptions SessionGroupOptions;

// N sessions that share variables and tables. May be used by many threads at a time.
typedef struct SessionGroup SessionGroup;

// What the sessions of a group are doing at the moment when a custom policy is called. Valid during
// that call only.
typedef struct {
  // The size of this struct in the library. Newer versions add fields at the end.
  size_t struct_size;
  // The number of sessions in the group, and of elements in each array below.
  int32_t session_num;
  // For each session: requests given to it and not answered yet.
  const int64_t *in_flight;
  // For each session: the requests in flight that wait for one of its worker threads.
  const int64_t *queued;
} SessionGroupLoad;

// A custom policy: returns the number of the session that runs the request, from 0. If it returns any
// other number, the request fails with TF_INVALID_ARGUMENT; if it throws a C++ exception, with
// TF_INTERNAL and what(). The threads that run requests call it, many at the same time. It must not
// close or delete the group. Requests that it makes to the group itself must name a session, with
// SessionGroup_RunOn(); otherwise they fail with TF_FAILED_PRECONDITION.
typedef int32_t (*SessionGroupPolicyFn)(void *context, const SessionGroupLoad *load);

// What a session has done since it was made. Counters only grow, and wrap at 2^64.
typedef struct {
  // The caller sets this to sizeof(SessionGroupStats), because its header may be older or newer than
  // the library; the library sets it to the number of bytes that it has filled.
  size_t struct_size;
  // Requests answered, successfully or not.
  uint64_t runs;
  // The same requests by the number of the answer's TF_Code; TF_OK is number 0.
  uint64_t answers[17];
  // Requests refused because the session's queue was full; also counted above.
  uint64_t rejected;
  // Requests given to the session and not answered yet.
  uint64_t in_flight;
  // Those requests in flight that wait for one of the session's worker threads.
  uint64_t queued;
  // Nanoseconds that threads have spent running requests on the session, summed over all threads.
  uint64_t busy_ns;
  // Nanoseconds from call to answer, including time in a queue: the sum, and quantiles that are
  // accurate to 1/64 of their value.
  uint64_t latency_sum_ns;
  uint64_t latency_p50_ns;
  uint64_t latency_p90_ns;
  uint64_t latency_p99_ns;
  uint64_t latency_p999_ns;
  uint64_t latency_max_ns;
  // In a multi-stream group: TensorFlow's numbers of the session's GPU and of its virtual device;
  // the number of the session's stream on that GPU, from 0; and 1 if the session is the GPU's
  // leader, on which variables are restored and initialised, else 0. In other groups: -1 for all
  // four.
  int32_t gpu;
  int32_t virtual_device;
  int32_t stream_group;
  int32_t leader;
  // Requests that ran as programs. The eight way_ fields together count each answered request once,
  // so their sum is `runs`. If several reasons apply, the first one that a request meets counts;
  // docs/performance.md gives the order.
  uint64_t way_program;
  // Requests that ran on TensorFlow's session because they have no program; SessionGroup_Explain()
  // says why. The next five fields also count requests that ran on TensorFlow's session, for other
  // reasons.
  uint64_t way_no_program;
  // Because of their RunOptions, such as a trace, or because the ConfigProto wants their RunMetadata
  // filled.
  uint64_t way_run_options;
  // Because they have a timeout and an operation that may wait for something.
  uint64_t way_may_wait;
  // Because too many other sets of names were in use at that moment.
  uint64_t way_no_room;
  // Because the group runs no programs: its execution is "pool", or "serial_executor" is off.
  uint64_t way_disabled;
  // Because they came through tensorflow::Session and need what only TensorFlow's own session can
  // do, such as partial runs or the caller's thread pools.
  uint64_t way_visit;
  // Requests that did not run: a name was unknown, the queue was full, or the timeout passed before
  // they began.
  uint64_t way_not_run;
  // Requests that ran by their names on the session's inter-op pool rather than on one thread.
  uint64_t on_pool;
  // Requests that ran as programs and had to read a variable in TensorFlow's way, because it had no
  // value yet or could not be kept.
  uint64_t unresolved;
  // Requests that ran as programs and gathered rows one table after the other, because an index was
  // out of range or a shape was not foreseen.
  uint64_t unfused;
} SessionGroupStats;

// The memory of tensors of 1 MiB and more, of all groups together. When a request frees it, the
// process keeps it for the next request.
typedef struct {
  // The caller sets this to sizeof(SessionGroupMemoryStats), because its header may be older or
  // newer than the library; the library sets it to the number of bytes that it has filled.
  size_t struct_size;
  // Bytes in use by such tensors, including variables and constants.
  uint64_t in_use_bytes;
  // Bytes that are free and kept for the next request.
  uint64_t kept_bytes;
  // The limit on kept_bytes: SESSION_GROUP_KEPT_BYTES or its default; 0 while no group is open.
  uint64_t kept_limit_bytes;
  // Tensors that got kept memory. This counter and the next one only grow.
  uint64_t hits;
  // Tensors that got memory from the system, which costs a page fault for each page.
  uint64_t misses;
} SessionGroupMemoryStats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes options with nothing set. The caller deletes them with SessionGroupOptions_Delete(). They may
// be used for many groups; each group keeps a copy. Don't call setters from two threads at the same
// time, nor while a group is being made with the options.
SessionGroupOptions *NewSessionGroupOptions(void);

// Sets how many sessions the group has, 1 to 1024; checked when a group is made. Default: the number
// of entries in the cpuset.
void SessionGroupOptions_SetSessionNum(SessionGroupOptions *options,
                                       int32_t session_num);

// Pins all threads of each session to CPUs. A cpuset has one entry for each session, separated by ';'.
// An entry is a list of items separated by ','; an item is a CPU "N" or a range "A-B". "2-4;5-7" gives
// three CPUs to each of two sessions. Overrides the environment variable SESSION_GROUP_CPUSET, which
// takes the same form. Whether the process may use the CPUs is checked when a group is made.
//
// Errors: TF_INVALID_ARGUMENT for a cpuset that does not follow the grammar; the message names the
// entry and what is wrong with it.
void SessionGroupOptions_SetCpuset(SessionGroupOptions *options,
                                   const char *cpuset,
                                   TF_Status *status);

// Gives each session cores of its own, chosen automatically: whole physical cores, from the CPUs that
// the process may use; as many sessions as possible within a single NUMA node each; core counts that
// differ by at most one; every core used. True has the effect of SET_SESSION_THREAD_POOL_AFFINITY=1 in
// the environment; false makes the library ignore that variable. A cpuset chooses the CPUs explicitly
// instead: making a group with both set is an error.
void SessionGroupOptions_SetThreadPoolAffinity(SessionGroupOptions *options,
                                               bool affinity);

// Chooses by name which session a request goes to:
//
// - "auto" (default): "thread" if the execution is "caller", so that threads write to no memory of
//   others; otherwise, and in a multi-stream group, "least_loaded";
// - "round_robin": one session after the other;
// - "thread": a calling thread stays with one session;
// - "least_loaded": the session with the fewest requests in flight; with more than eight sessions, the
//   better of two random ones;
// - "cpu_local": the session whose cpuset holds the CPU that the caller runs on, or the next one in
//   turn if none does. Each session needs CPUs of its own, from a cpuset or from thread pool affinity.
//
// Errors: TF_INVALID_ARGUMENT for any other name.
void SessionGroupOptions_SetPolicy(SessionGroupOptions *options,
                                   const char *name,
                                   TF_Status *status);

// Lets a function of the program choose the session for each request; NULL goes back to "auto".
// `context` is passed to it and stays the program's. It must stay valid until `release(context)` is
// called: once, when neither these options nor a group made with them needs it any more. `release` may
// be NULL.
void SessionGroupOptions_SetPolicyFn(SessionGroupOptions *options,
                                     SessionGroupPolicyFn choose,
                                     void *context,
                                     void (*release)(void *context));

// Chooses by name which threads run a request's graph:
//
// - "caller": the calling thread, without any hand-off;
// - "worker": one of the session's worker threads, which takes the whole request from the session's
//   queue;
// - "pool": the session's inter-op thread pool, over which the graph is spread, as TensorFlow does by
//   itself;
// - "auto" (default): "worker" if sessions have CPUs of their own and the policy is not "cpu_local";
//   otherwise "caller".
//
// With "caller" and "worker", a request whose RunOptions choose another inter_op_thread_pool than 0
// runs on that pool, and a request with a timeout runs on the inter-op pool if its graph has
// operations that may wait, or if it is left to TensorFlow's session; see
// SessionGroupOptions_SetOptimization().
//
// Errors: TF_INVALID_ARGUMENT for any other name.
void SessionGroupOptions_SetExecution(SessionGroupOptions *options,
                                      const char *name,
                                      TF_Status *status);

// Chooses by name which kernels programs use if TensorFlow has several for an operation:
//
// - "auto" (default): the faster of oneDNN's kernel and TensorFlow's own, for each operation and
//   number of rows (the product of all dimensions of the first input except the last). The first
//   request of each size runs both kernels several times to measure them; where they take
//   milliseconds, the first few requests share this work. So warm up with each batch size that you
//   serve. The choice is final and holds for all sessions. Operation by operation, each answer has the
//   same bits as stock TensorFlow with oneDNN on or with oneDNN off.
// - "stock": the kernels that a session in the same process uses, so that answers have the same bits.
//
// Without oneDNN (TF_ENABLE_ONEDNN_OPTS=0) the two are the same.
//
// Errors: TF_INVALID_ARGUMENT for any other name.
void SessionGroupOptions_SetKernels(SessionGroupOptions *options,
                                    const char *name,
                                    TF_Status *status);

// Switches an optimisation on or off, by name. All are on by default. None changes an answer, except
// as noted for "shared_constants".
//
// - "serial_executor": with the executions "caller" and "worker", each graph is optimised once for all
//   sessions and runs as a program: node by node on one thread, without TensorFlow's session in
//   between. Graphs with state in their kernels, and requests whose RunOptions
//   set more than a timeout, always run on TensorFlow's session; SessionGroup_Explain() says which and
//   why;
// - "resolved_reads": requests read variables without looking them up, locking them, or counting
//   references to what all sessions share, until a request writes any variable or table;
// - "fused_lookups": the rows of all embeddings of a graph are gathered in one pass; if they are
//   concatenated, straight into the result. A lookup in a partitioned embedding is one operation instead
//   of several for each partition;
// - "fast_memory": small tensors get memory from lists that each thread has to itself; very large ones
//   get huge pages if the system provides them;
// - "shared_constants": constants of 64 KiB and more are stored once in the group, as variables are.
//   If TensorFlow's session runs a request by its names, it can't fold them into other constants, so
//   results may be rounded differently;
// - "resource_variables": TensorFlow 1's reference variables (VariableV2) that a graph only assigns are kept
//   as resource variables, which programs can read, under all their old names. Those that it updates in
//   another way, as optimisers do, stay as they are;
// - "parallel_restore": one thread for each CPU that the process may use reads checkpoints, straight
//   into the memory of the variables. Damaged files, and anything else that these threads can't read,
//   are left to TensorFlow's own kernel;
// - "interleaved_tables": variables that are loaded, and constants, of 1 MiB and more lie page by page on all NUMA
//   nodes of the sessions' CPUs in turn, instead of where the thread ran that filled them. Needs "fast_memory".
//
// Errors: TF_INVALID_ARGUMENT for any other name.
void SessionGroupOptions_SetOptimization(SessionGroupOptions *options,
                                         const char *name,
                                         bool enabled,
                                         TF_Status *status);

// For the execution "worker": sets how many worker threads each session has, 1 to 1024; checked when a
// group is made. Default: one for each CPU of the session, or for each CPU in its share if it has none
// of its own.
void SessionGroupOptions_SetWorkerThreads(SessionGroupOptions *options,
                                          int32_t worker_threads);

// For the execution "worker": sets how many requests may wait for a session's worker threads (1 to
// 65536, checked when a group is made; default: 1024), and what happens to a request that finds the
// queue full. If `wait_when_full` is true, it waits for room, at most for its timeout. If false, the
// default, it fails at once with TF_RESOURCE_EXHAUSTED.
void SessionGroupOptions_SetQueue(SessionGroupOptions *options,
                                  int32_t capacity,
                                  bool wait_when_full);

// Sets how long, in milliseconds, SessionGroup_Close() lets running requests finish before it cancels
// them: 0 or more, where 0 cancels at once; checked when a group is made. Default: 30000, but 0 for a
// group made by a session target, because closing TensorFlow's own session cancels at once.
void SessionGroupOptions_SetDrainTimeout(SessionGroupOptions *options,
                                         int64_t milliseconds);

// Gives each session a compute stream of its own on a GPU, in addition to a CPU; default: false. All
// sessions on a GPU share one copy of its variables. Each session sees one GPU, as "GPU:0".
//
// SessionGroupOptions_SetSessionNum() then sets the number of sessions on each GPU, 1 or more, and the
// group has that many times the number of GPUs. Sessions are assigned to the GPUs in turn: with two
// GPUs, sessions 0, 2 and 4 are on the first one. The first session on each GPU is its leader.
//
// LoadSessionGroupFromSavedModel() restores and initialises on each leader. A request that may write
// variables of a GPU runs on all leaders, one after the other, or on the session that it names. No
// other request of the group runs meanwhile.
//
// TensorFlow fixes the number of streams of its GPUs when it first creates them: groups made later in
// the process use the same streams. With ENABLE_MPS=1 in the environment, making a group fails if
// CUDA's MPS control daemon can't be reached, and CONTEXTS_COUNT_PER_GPU (default: 4) is the number of
// sessions on each GPU if neither SessionGroupOptions_SetSessionNum() nor a cpuset sets it.
//
// Errors, when a group is made: TF_FAILED_PRECONDITION if TensorFlow has no GPU support or finds no
// GPU, if the process's GPUs were set up for fewer streams, or if there is no MPS daemon;
// TF_INVALID_ARGUMENT if the ConfigProto's gpu_options or the environment contradict these options;
// and TensorFlow's own errors if it can't make that many virtual devices.
void SessionGroupOptions_SetMultiStream(SessionGroupOptions *options,
                                        bool multi_stream);

// For SessionGroupOptions_SetMultiStream(): chooses the GPUs, by TensorFlow's numbers. These count,
// from 0, the GPUs that CUDA_VISIBLE_DEVICES and gpu_options.visible_device_list leave visible.
// Default, and with an empty list: all of them. Whether the GPUs exist is checked when a group is
// made.
//
// Errors: TF_INVALID_ARGUMENT for a negative number, or a number that occurs twice.
void SessionGroupOptions_SetGpuIds(SessionGroupOptions *options,
                                   const int32_t *gpu_ids,
                                   int32_t ngpu_ids,
                                   TF_Status *status);

// Deletes the options; NULL is allowed. Groups made with them are not affected.
void SessionGroupOptions_Delete(SessionGroupOptions *options);

// Makes a group of `session_num` sessions, 1 to 1024, without a graph. All other options come from the
// environment, then from the defaults. The caller deletes the group with SessionGroup_Delete().
//
// `session_options` configures each session, as for TF_NewSession(), and is copied. Its target must be
// empty. The sizes of the thread pools in its ConfigProto are per session: 0 means one thread for each
// CPU of the session (if it has no CPUs of its own, for each CPU in its share of those that the
// process may use); a negative inter_op_parallelism_threads runs graphs on the calling thread, as in
// TensorFlow.
//
// Errors: returns NULL, with TF_INVALID_ARGUMENT for options that are wrong, that contradict each
// other or that the machine can't satisfy; TF_FAILED_PRECONDITION if the loaded TensorFlow has another
// minor version than the one that the library was built for.
SessionGroup *NewSessionGroup(const TF_SessionOptions *session_options,
                              int32_t session_num,
                              TF_Status *status);

// Like NewSessionGroup(), with all options.
SessionGroup *NewSessionGroupWithOptions(const TF_SessionOptions *session_options,
                                         const SessionGroupOptions *options,
                                         TF_Status *status);

// Gives all sessions their graph: `graph_def_len` bytes of a serialised GraphDef. To initialise its
// variables and tables, run their initialisers once: all sessions see the result.
//
// Errors: TF_ALREADY_EXISTS if the group has a graph; TF_INVALID_ARGUMENT or TF_NOT_FOUND for a graph
// that TensorFlow refuses, which leaves the group without one.
void SessionGroup_Create(SessionGroup *group,
                         const void *graph_def,
                         size_t graph_def_len,
                         TF_Status *status);

// Adds the nodes of a serialised GraphDef to the graph of all sessions. Requests may run meanwhile.
void SessionGroup_Extend(SessionGroup *group,
                         const void *graph_def,
                         size_t graph_def_len,
                         TF_Status *status);

// Returns how many sessions the group has; 0 for NULL.
int32_t SessionGroup_SessionNum(const SessionGroup *group);

// Lists the devices that each session sees, like TF_SessionListDevices(). The caller deletes the list
// with TF_DeleteDeviceList(). Returns NULL on failure.
TF_DeviceList *SessionGroup_ListDevices(SessionGroup *group,
                                        TF_Status *status);

// Closes the group. New requests fail with TF_FAILED_PRECONDITION. Running requests may finish within
// the time set by SessionGroupOptions_SetDrainTimeout(); those that still run then are cancelled and
// fail with TF_CANCELLED. Then frees sessions, threads, variables and tables. Closing twice is
// allowed. Must not be called from a policy function of the group.
//
// Errors: TF_DEADLINE_EXCEEDED if requests still run five seconds after they were cancelled, because
// their operations can't be cancelled: the group stays closed and its sessions, threads, variables and
// tables stay in memory; closing it again once these requests have ended frees them.
// TF_FAILED_PRECONDITION in a process that was forked after the group was made. TF_INTERNAL if an
// exception has left a session in an unknown state: that session, the variables and the tables then
// stay in memory. Other errors are TensorFlow's; the group is closed all the same.
void SessionGroup_Close(SessionGroup *group,
                        TF_Status *status);

// Closes the group if it is open, and deletes it; NULL is allowed. Requests that keep running after
// they were cancelled keep the memory that they use. No other call on the group may be in progress: if
// threads may still be running requests, call SessionGroup_Close() first, which is safe while they
// run, and join them.
void SessionGroup_Delete(SessionGroup *group);

// Makes a group that serves a SavedModel, ready to run: restores its variables and runs its
// initialisers once for all sessions. The counterpart of TF_LoadSessionFromSavedModel(). The caller
// deletes the group with SessionGroup_Delete().
//
// `session_options` is as for NewSessionGroup(). `run_options`, which may be NULL, is a serialised
// RunOptions for restoring. `export_dir` is the folder that contains saved_model.pb. `tags` are
// `ntags` strings, exactly those of the MetaGraphDef to load, usually the single tag "serve".
// `meta_graph_def` may be NULL; otherwise it must be empty, and receives the serialised MetaGraphDef,
// whose signatures name the tensors to feed and to fetch.
//
// Errors: returns NULL, with TF_NOT_FOUND for a folder without a SavedModel or a SavedModel without
// such a MetaGraphDef; TensorFlow's own errors for files that can't be read; those of
// NewSessionGroup().
SessionGroup *LoadSessionGroupFromSavedModel(const TF_SessionOptions *session_options,
                                             const TF_Buffer *run_options,
                                             const char *export_dir,
                                             const char *const *tags,
                                             int32_t ntags,
                                             const SessionGroupOptions *options,
                                             TF_Buffer *meta_graph_def,
                                             TF_Status *status);

// Runs the graph on the session that the policy chooses; the counterpart of Session::Run(). Any number
// of threads may call this at the same time.
//
// `run_options`, which may be NULL, is a serialised RunOptions. Feeds are `ninputs` pairs of a name,
// such as "x:0" or "x", and a tensor; the caller keeps ownership of these tensors. Fetches are
// `noutputs` names, and `outputs` has room for as many tensors. It is written on success only; the
// caller then owns the tensors and deletes them with TF_DeleteTensor(). Targets are `ntargets` names
// of operations to run without fetching anything. `run_metadata` may be NULL; otherwise it must be
// empty, and receives a serialised RunMetadata.
//
// Errors: TF_INVALID_ARGUMENT, TF_NOT_FOUND or TF_OUT_OF_RANGE for names, types or shapes that the
// graph refuses; TF_FAILED_PRECONDITION if the group has no graph or is closed; TF_DEADLINE_EXCEEDED
// if the request takes longer than RunOptions.timeout_in_ms, including time in a queue;
// TF_RESOURCE_EXHAUSTED if the queue is full; otherwise what the graph's operations report.
void SessionGroup_Run(SessionGroup *group,
                      const TF_Buffer *run_options,
                      const char *const *input_names,
                      TF_Tensor *const *inputs,
                      int32_t ninputs,
                      const char *const *output_names,
                      TF_Tensor **outputs,
                      int32_t noutputs,
                      const char *const *target_names,
                      int32_t ntargets,
                      TF_Buffer *run_metadata,
                      TF_Status *status);

// Like SessionGroup_Run(), on session number `session_id` modulo the number of sessions; if it is
// negative, on the session that the policy chooses.
void SessionGroup_RunOn(SessionGroup *group,
                        int32_t session_id,
                        const TF_Buffer *run_options,
                        const char *const *input_names,
                        TF_Tensor *const *inputs,
                        int32_t ninputs,
                        const char *const *output_names,
                        TF_Tensor **outputs,
                        int32_t noutputs,
                        const char *const *target_names,
                        int32_t ntargets,
                        TF_Buffer *run_metadata,
                        TF_Status *status);

// Like SessionGroup_Run(), with the parameters of TF_SessionRun(). The outputs and operations may
// belong to any TF_Graph, because only their names are used.
//
// Errors: also TF_OUT_OF_RANGE for a TF_Output with an index that its operation does not have.
void SessionGroup_SessionRun(SessionGroup *group,
                             const TF_Buffer *run_options,
                             const TF_Output *inputs,
                             TF_Tensor *const *input_values,
                             int ninputs,
                             const TF_Output *outputs,
                             TF_Tensor **output_values,
                             int noutputs,
                             const TF_Operation *const *target_opers,
                             int ntargets,
                             TF_Buffer *run_metadata,
                             TF_Status *status);

// Runs a request once on each session, on all of them at the same time, so that no later request pays
// for what a session does only the first time. Parameters are as for SessionGroup_Run(); the fetched
// tensors are discarded. Call it for each signature before the group gets its first real request.
//
// Errors: those of SessionGroup_Run(), from any session.
void SessionGroup_WarmUp(SessionGroup *group,
                         const char *const *input_names,
                         TF_Tensor *const *inputs,
                         int32_t ninputs,
                         const char *const *output_names,
                         int32_t noutputs,
                         const char *const *target_names,
                         int32_t ntargets,
                         TF_Status *status);

// Registers the session target "session_group" with TensorFlow. From then on NewSession(),
// TF_NewSession(), TF_LoadSessionFromSavedModel() and everything built on them make a group if
// SessionOptions.target asks for one:
//
// ```text
// session_group                        as many sessions as SESSION_GROUP_CPUSET has entries
// session_group:4                      4 sessions
// session_group://4?policy=least_loaded&execution=caller&cpuset=0-1;2-3;4-5;6-7
// ```
//
// The keys are policy, execution, kernels, cpuset, affinity (true or false), worker_threads, queue
// (its capacity), wait_when_full (true or false), drain_timeout_ms, multi_stream (true or false) and
// gpu_ids (such as "0,1"), which work like the setters of SessionGroupOptions, and the names of
// optimisations (true or false). Sessions with other targets are not affected.
//
// Closing such a session cancels its running requests, as with TensorFlow's own, unless
// drain_timeout_ms lets them finish.
//
// The shared library calls this when it is loaded. Call it yourself in a program that links
// libsession_group.a, or that uses nothing else of the library: otherwise the linker leaves the
// library out. Calling it again does nothing.
//
// Errors: TF_FAILED_PRECONDITION if the loaded TensorFlow has another minor version than the one that
// the library was built for.
void SessionGroup_RegisterTarget(TF_Status *status);

// Makes a tensorflow::Session, returned as a pointer that C++ casts to tensorflow::Session*. It stands
// for session number `session_id` of the group, modulo the number of sessions, or, if `session_id` is
// negative, for the whole group: each request then goes to the session that the policy chooses. The
// caller deletes it, before the group. It is as thread-safe as any session. Closing it closes the
// group if it stands for the whole group; otherwise it closes this object only.
//
// Errors: returns NULL, with TF_FAILED_PRECONDITION as for SessionGroup_RegisterTarget().
void *SessionGroup_NewCppSession(SessionGroup *group,
                                 int32_t session_id,
                                 TF_Status *status);

// Like SessionGroup_NewCppSession(), for the group behind `session`: a tensorflow::Session* that a
// session target or this library has made.
//
// Errors: returns NULL, with TF_INVALID_ARGUMENT if `session` is not a session group.
void *SessionGroup_NewCppPart(void *session, int32_t session_id, TF_Status *status);

// Returns the group behind a tensorflow::Session*, for use with the functions of this header. Don't
// delete the group through this pointer, and don't use it once the session is deleted: a group that a
// session target has made is deleted with its session.
//
// Errors: returns NULL, with TF_INVALID_ARGUMENT if `session` is not a session group.
SessionGroup *SessionGroup_FromCppSession(void *session,
                                          TF_Status *status);

// Prepares requests with these feeds, fetches and targets on all sessions of the group; the
// counterpart of Session::MakeCallable(). Names are as for SessionGroup_Run(). If the graph, the
// execution and the options allow it (see "serial_executor" of SessionGroupOptions_SetOptimization()),
// every session has its kernels when this returns, and no request looks up names. Otherwise requests
// run as with SessionGroup_Run().
//
// The caller deletes the callable with SessionGroupCallable_Delete(), before or after the group.
// SessionGroup_Run() with the same names uses the same preparation, which is kept until the group is
// closed.
//
// Errors: returns NULL, with the errors of SessionGroup_Run() for names that the graph refuses.
SessionGroupCallable *SessionGroup_MakeCallable(SessionGroup *group,
                                                const char *const *feed_names,
                                                int32_t nfeeds,
                                                const char *const *fetch_names,
                                                int32_t nfetches,
                                                const char *const *target_names,
                                                int32_t ntargets,
                                                TF_Status *status);

// Runs the callable on the session that the policy chooses. Any number of threads may call this at the
// same time. `inputs` are in the order of the feeds; the caller keeps ownership of these tensors.
// `outputs` has room for one tensor for each fetch. It is written on success only; the caller then
// owns the tensors and deletes them with TF_DeleteTensor().
//
// Errors: TF_INVALID_ARGUMENT if the number of tensors is not the number of feeds or of fetches; those
// of SessionGroup_Run().
void SessionGroupCallable_Run(SessionGroupCallable *callable,
                              TF_Tensor *const *inputs,
                              int32_t ninputs,
                              TF_Tensor **outputs,
                              int32_t noutputs,
                              TF_Status *status);

// Deletes the callable; NULL is allowed. None of its runs may be in progress.
void SessionGroupCallable_Delete(SessionGroupCallable *callable);

// Fills `stats` with what session `session_id` has done. The caller sets struct_size first. Works
// after SessionGroup_Close(), too. The fields are read one after the other while requests go on, so
// they may not agree with each other exactly.
//
// Errors: TF_OUT_OF_RANGE if the group has no such session; TF_INVALID_ARGUMENT if struct_size is
// smaller than in any version.
void SessionGroup_GetStats(const SessionGroup *group,
                           int32_t session_id,
                           SessionGroupStats *stats,
                           TF_Status *status);

// Fills `stats`. The caller sets struct_size first.
//
// Errors: TF_INVALID_ARGUMENT if struct_size is smaller than in any version.
void SessionGroup_GetMemoryStats(SessionGroupMemoryStats *stats, TF_Status *status);

// Returns the latency, in nanoseconds, that a share `quantile` (0 to 1) of a session's requests did
// not exceed, accurate to 1/64 of its value; 0 before the first answer, and on failure.
//
// Errors: TF_OUT_OF_RANGE if the group has no such session; TF_INVALID_ARGUMENT for a quantile outside
// 0 to 1.
uint64_t SessionGroup_LatencyQuantile(const SessionGroup *group,
                                      int32_t session_id,
                                      double quantile,
                                      TF_Status *status);

// Fills `text`, which must be empty, with metrics in Prometheus' text exposition format 0.0.4. The
// text is not zero-terminated. Works after SessionGroup_Close(), too.
//
// For each session, with the labels "group" (the group's number in this process) and "session":
//
// - session_group_requests_total, by "code";
// - session_group_requests_by_way_total, by "way": "program", "no_program" and so on, as in
//   SessionGroupStats;
// - session_group_rejected_total, _on_pool_total, _unresolved_total, _unfused_total, _in_flight,
//   _queued and _busy_seconds_total;
// - session_group_request_duration_seconds, a histogram;
// - in a multi-stream group, session_group_stream_info, which is 1, with the further labels "gpu",
//   "virtual_device", "stream_group" and "leader".
//
// For the process, as in SessionGroup_GetMemoryStats(): session_group_large_tensors_in_use_bytes,
// _kept_bytes, _kept_limit_bytes, _hits_total and _misses_total; and _moved_total, the tensors that
// got kept memory which another CPU had last.
void SessionGroup_MetricsText(const SessionGroup *group, TF_Buffer *text, TF_Status *status);

// Fills `json`, which must be empty, with a JSON object that describes the group and gives the
// reasons:
//
// - "group": its number in this process, as in the names of its threads;
// - "tensorflow": the version that the library was built for;
// - "closed": true or false;
// - "execution": "caller", "worker" or "pool", which is also what "auto" resolved to;
// - "kernels": "auto" or "stock", as for SessionGroupOptions_SetKernels();
// - "policy": its name, which is also what "auto" resolved to; "custom" for a function of the program's
//   own;
// - "allowed_cpus": the CPUs that the process might use when the group was made, such as "0-7";
// - "cpu_quota": how many CPUs' time the control groups of the process allow it, such as 2.5, or null if
//   they have no quota;
// - "table_nodes": the numbers of the NUMA nodes over which tables are spread, as "interleaved_tables" of
//   SessionGroupOptions_SetOptimization() does; none if it is off;
// - "optimizations": an array of the names of those that are on, as for
//   SessionGroupOptions_SetOptimization();
// - "queue": an object with "capacity" and "wait_when_full";
// - "kept_bytes": the most memory of large tensors, in bytes, that the process keeps for the next
//   request;
// - "drain_timeout_ms": how long closing lets requests finish;
// - "why": an object with the reasons, in words, for "cpus", "threads", "execution", "policy" and
//   "tables", that is, for "table_nodes";
// - "multi_stream": null, or an object with "gpu_ids", an array, and "mps": null, or an object with
//   "contexts_per_gpu", which is 1, and "contexts_asked_for", CONTEXTS_COUNT_PER_GPU or null;
// - "sessions": an array of objects with "session", its number; "cpus", such as "0-3", or null if it
//   is not pinned; "numa_nodes", the numbers of their nodes; "intra_op_threads"; "inter_op_threads";
//   "worker_threads"; and, in a multi-stream group, "gpu", "virtual_device" and "stream_group", as in
//   SessionGroupStats, and "leader", true or false.
//
// The text is not zero-terminated. Newer versions may add fields. Works after SessionGroup_Close(),
// too.
void SessionGroup_Describe(const SessionGroup *group,
                           TF_Buffer *json,
                           TF_Status *status);

// Fills `json`, which must be empty, with a JSON object that says what the group has prepared for
// requests, how it runs them, and why:
//
// - "group", "closed": as for SessionGroup_Describe();
// - "programs": whether the group runs programs; "why_not": null, or why it runs none, in words;
// - "signatures": an array of objects, one for each set of feeds, fetches and targets that a request
//   or a callable has used and that the group still remembers. It remembers the last several hundred.
//   Empty after SessionGroup_Close(). In each object:
//   - "feeds", "fetches", "targets": arrays of names, sorted;
//   - "runs_as": "program", or "names" if TensorFlow's session runs it by its names;
//   - "why": null, or why it does not run as a program, in words, with the name of the node that
//     prevents it; "advice": null, or what to change in the model, in words;
//   - "writes": whether a run may change a variable or a table;
//   - "compile_ms": how many milliseconds its preparation took;
//   - for a program that a session has made ready, otherwise null: "steps", how many steps a run has,
//     with the bodies of loops counted once; "loops", how many there are; "may_wait", whether an
//     operation may wait for something, which makes requests with a timeout run by their names;
//     "resolved_variables" and "resolved_tables", how many variables and lookup tables are read
//     without TensorFlow's locks; "fused_lookups", how many lookups are done together;
//     "constant_bytes", the bytes of constants that all sessions share;
//   - "kernels": an array of objects, one for each operation that has both a oneDNN kernel and one of
//     TensorFlow's own, and each size that was measured: "node", the operation's name (if TensorFlow
//     has fused several, the last one's); "rows", the least number of rows that the choice holds for,
//     up to twice as many less one; "onednn", whether oneDNN's kernel is used. Empty with the kernels
//     "stock";
// - "requests": an object with "runs", "on_pool", "unresolved" and "unfused", as in SessionGroupStats,
//   summed over all sessions, and "ways": an object with "program", "no_program" and so on;
// - "sessions": an array of such objects, each also with "session", its number.
//
// The text is not zero-terminated. Newer versions may add fields.
void SessionGroup_Explain(const SessionGroup *group,
                          TF_Buffer *json,
                          TF_Status *status);

// Fills `text` as SessionGroup_MetricsText() does, for all groups of the process that are not closed,
// including those that a session target has made, for which the program has no handle.
void SessionGroup_AllMetricsText(TF_Buffer *text,
                                 TF_Status *status);

// Fills `json` with a JSON array of what SessionGroup_Describe() gives, for all groups of the process
// that are not closed.
void SessionGroup_DescribeAll(TF_Buffer *json,
                              TF_Status *status);

// Fills `json` with a JSON array of what SessionGroup_Explain() gives, for all groups of the process
// that are not closed.
void SessionGroup_ExplainAll(TF_Buffer *json,
                             TF_Status *status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SESSION_GROUP_H_ */
