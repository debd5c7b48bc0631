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
 *   - Arguments stay the caller's and are not used after the call, but for the context of
 *     SessionGroupOptions_SetPolicyFn(). Tensors that are fetched are the caller's.
 *   - A tensor that is fed must not be changed while the call runs.
 *
 * Threads
 *   - All functions on a SessionGroup but SessionGroup_Delete() may be called by any number of threads
 *     at a time. SessionGroupOptions are for one thread at a time.
 *   - When a process ends by exit(), or by returning from main(), no request may be running any more:
 *     TensorFlow's destructors take away what its kernels use, under stock sessions, too. Close groups
 *     first, which lets requests finish or cancels them, or end by _exit(). Groups that are open and idle do no harm.
 *   - Threads stay behind when a process forks: in the child, groups that were made before fail with
 *     TF_FAILED_PRECONDITION, and deleting one frees nothing. TensorFlow itself does not support forking
 *     once it has started threads: start children with exec.
 *
 * What the sessions of a group share: resource variables, reference variables (VariableV2), lookup
 * tables and all else that TensorFlow keeps in a device's resource manager under a name. A table of
 * the main graph that has no shared_name is shared by the name of its node. What they don't share:
 * what a kernel keeps to itself, such as the state of a random generator with a fixed seed or an
 * iterator, which is refused where it has a shared_name, tables that function bodies make without a shared_name, and
 * tensors kept by GetSessionHandle, which SessionGroup_RunOn() must bring back to their session.
 * Groups share nothing with each other, nor with other sessions of the process.
 *
 * Environment, read when a group is made
 *   SESSION_GROUP_CPUSET: CPUs for each session, as for SessionGroupOptions_SetCpuset(), which wins.
 *   SET_SESSION_THREAD_POOL_AFFINITY: 1 gives each session cores of its own, as for
 *     SessionGroupOptions_SetThreadPoolAffinity(), which wins. A cpuset wins over it.
 *   SESSION_GROUP_KEPT_BYTES: how much memory of large tensors the process keeps for the next request
 *     at most; an eighth of its memory by default. The last group that is made decides. 0 keeps none.
 *   ENABLE_MPS, CONTEXTS_COUNT_PER_GPU: for SessionGroupOptions_SetMultiStream().
 *
 * Threads are named sg<group>.s<session>-inter, -intra and -work, for the inter-op pool, the
 * intra-op pool and the workers of a session, as `ps -L` and /proc/<pid>/task show them.
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

// How a group shall be made. What is not set is left to the environment, and then to defaults.
typedef struct SessionGroupOptions SessionGroupOptions;

// N sessions that share variables and tables. May be used by many threads at a time.
typedef struct SessionGroup SessionGroup;

// What the sessions of a group are doing when a policy of the program's own is asked. Valid during
// that call only.
typedef struct {
  // The size of this struct in the library. Newer versions add fields at the end.
  size_t struct_size;
  // How many sessions the group has, and each of the arrays below has elements.
  int32_t session_num;
  // Requests given to each session and not answered yet.
  const int64_t *in_flight;
  // Those of them that wait for one of the session's worker threads.
  const int64_t *queued;
} SessionGroupLoad;

// A policy of the program's own: returns the number of the session that is to run the request,
// from 0. Any other number fails the request with TF_INVALID_ARGUMENT, an exception of C++ with
// TF_INTERNAL and what(). It is called by the threads that run requests, by many at a time. It must not
// close or delete the group; requests of its own to the group must name a session, with
// SessionGroup_RunOn(), or fail with TF_FAILED_PRECONDITION.
typedef int32_t (*SessionGroupPolicyFn)(void *context, const SessionGroupLoad *load);

// What a session has done since it was made. Counters only grow, and wrap after 2^64.
typedef struct {
  // To be set to sizeof(SessionGroupStats) by the caller, whose header may be older or newer than
  // the library; gets the number of bytes that were filled.
  size_t struct_size;
  // Requests answered, whatever the answer.
  uint64_t runs;
  // The same by the number of the answer's TF_Code; TF_OK is number 0.
  uint64_t answers[17];
  // Requests refused because the session's queue was full; counted above, too.
  uint64_t rejected;
  // Requests given to the session and not answered yet.
  uint64_t in_flight;
  // Those of them that wait for one of the session's worker threads.
  uint64_t queued;
  // Nanoseconds that threads have run requests on the session, summed up.
  uint64_t busy_ns;
  // Nanoseconds from call to answer, the time in a queue counted in: summed up, and quantiles to
  // 1/64 of their value.
  uint64_t latency_sum_ns;
  uint64_t latency_p50_ns;
  uint64_t latency_p90_ns;
  uint64_t latency_p99_ns;
  uint64_t latency_p999_ns;
  uint64_t latency_max_ns;
  // Of a multi-stream group: TensorFlow's numbers of the session's GPU and of its virtual device;
  // which of the GPU's streams, from 0; and 1 where the session is the GPU's leader, on which
  // variables are restored and initialised. Else all are -1.
  int32_t gpu;
  int32_t virtual_device;
  int32_t stream_group;
  int32_t leader;
  // Requests that ran as programs. The eight fields that begin with way_ count each request that was
  // answered once, so their sum is `runs`. Where several reasons apply, the first one that a request
  // meets counts; docs/performance.md has their order.
  uint64_t way_program;
  // Requests that ran on TensorFlow's session, as did those of the next five fields. These did because
  // there is no program for them; SessionGroup_Explain() says why.
  uint64_t way_no_program;
  // Because of their RunOptions, such as a trace, or because the ConfigProto wants their RunMetadata
  // filled.
  uint64_t way_run_options;
  // Because they have a timeout, and an operation that may wait for something.
  uint64_t way_may_wait;
  // Because too many other sets of names were in use at that moment.
  uint64_t way_no_room;
  // Because the group runs no programs: its execution is "pool", or "serial_executor" is off.
  uint64_t way_disabled;
  // Because they came through tensorflow::Session with what only TensorFlow's own can do: partial runs,
  // thread pools of the caller.
  uint64_t way_visit;
  // Requests that did not run: a name is unknown, the queue was full, or the time was over before they
  // began.
  uint64_t way_not_run;
  // Requests that ran by their names on the session's inter-op pool, rather than on one thread.
  uint64_t on_pool;
  // Requests that ran as programs and had to read a variable in TensorFlow's way, because it had no
  // value yet or could not be kept.
  uint64_t unresolved;
  // Requests that ran as programs and gathered rows one table after the other, because an index was
  // out of range or a shape unforeseen.
  uint64_t unfused;
} SessionGroupStats;

// The memory of tensors of 1 MiB and more, which the process keeps for the next request when one has
// freed it: of all groups together.
typedef struct {
  // To be set to sizeof(SessionGroupMemoryStats) by the caller, whose header may be older or newer
  // than the library; gets the number of bytes that were filled.
  size_t struct_size;
  // Bytes that such tensors take, variables and constants included.
  uint64_t in_use_bytes;
  // Bytes that are free and kept for the next request.
  uint64_t kept_bytes;
  // What kept_bytes never exceeds: SESSION_GROUP_KEPT_BYTES, 0 while no group is open.
  uint64_t kept_limit_bytes;
  // Tensors that got memory which was kept. Both counters only grow.
  uint64_t hits;
  // Tensors for which the system was asked for memory, which costs a page fault for each page.
  uint64_t misses;
} SessionGroupMemoryStats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes options with nothing set. The caller deletes them with SessionGroupOptions_Delete(). They
// may be used for many groups; a group keeps a copy. Setters must not be called by two threads at a
// time, nor while a group is made.
SessionGroupOptions *NewSessionGroupOptions(void);

// How many sessions the group shall have, 1 to 1024; checked when a group is made. Default: as many
// as there are entries in the cpuset.
void SessionGroupOptions_SetSessionNum(SessionGroupOptions *options, int32_t session_num);

// Pins all threads of each session to CPUs: entries separated by ';', one for each session; items
// by ','; an item is a CPU "N" or a range "A-B". "2-4;5-7" gives three CPUs to each of two sessions.
// Wins over the environment variable SESSION_GROUP_CPUSET, which takes the same form. Whether the
// process may use the CPUs is checked when a group is made.
//
// Errors: TF_INVALID_ARGUMENT for a cpuset that does not follow the grammar; the message names the
// entry and what is wrong with it.
void SessionGroupOptions_SetCpuset(SessionGroupOptions *options,
                                   const char *cpuset,
                                   TF_Status *status);

// Gives each session cores of its own, found by themselves: whole physical cores, among the CPUs
// that the process may use; as many sessions as possible on one NUMA node each; numbers of cores
// that differ by at most one; every core used. True does what SET_SESSION_THREAD_POOL_AFFINITY=1 does
// in the environment; false makes that variable ignored. A cpuset says which CPUs instead: setting
// both is an error when a group is made.
void SessionGroupOptions_SetThreadPoolAffinity(SessionGroupOptions *options,
                                               bool affinity);

// Chooses by name which session a request goes to:
//
// - "round_robin" (default): one after the other;
// - "thread": a calling thread stays with one session;
// - "least_loaded": the session with the fewest requests in flight, among more than eight sessions
//   the better of two random ones;
// - "cpu_local": the session whose cpuset holds the CPU that the caller runs on, or the next in
//   turn where none does. Needs CPUs for each session, by a cpuset or by thread pool affinity.
//
// Errors: TF_INVALID_ARGUMENT for another name.
void SessionGroupOptions_SetPolicy(SessionGroupOptions *options,
                                   const char *name,
                                   TF_Status *status);

// Makes a function of the program's own choose the session for each request; NULL goes back to
// "round_robin". `context` is passed to it and stays the program's until `release(context)` is
// called: once, when neither these options nor a group made with them needs it any more. `release`
// may be NULL.
void SessionGroupOptions_SetPolicyFn(SessionGroupOptions *options,
                                     SessionGroupPolicyFn choose,
                                     void *context,
                                     void (*release)(void *context));

// Chooses by name on which threads a request's graph runs:
//
// - "caller": on the calling thread, without any hand-off;
// - "worker": on a thread of the session that takes the whole request from the session's queue;
// - "pool": spread over the session's inter-op pool, as TensorFlow does by itself;
// - "auto" (default): "worker" where sessions have CPUs of their own, unless the policy is
//   "cpu_local"; "caller" otherwise.
//
// With "caller" and "worker", RunOptions that name another inter_op_thread_pool than 0 run on that,
// and a request with a timeout runs on the inter-op pool where its graph has operations that may
// wait, or is left to TensorFlow's session; see SessionGroupOptions_SetOptimization().
//
// Errors: TF_INVALID_ARGUMENT for another name.
void SessionGroupOptions_SetExecution(SessionGroupOptions *options,
                                      const char *name,
                                      TF_Status *status);

// Which kernels programs take where TensorFlow has several for an operation, by name:
//
// - "auto", the default: for each operation and number of rows (all dimensions of the first input but
//   the last, multiplied), the faster one of oneDNN's kernel and TensorFlow's own. The first request
//   of each size runs both, some times, to find out, or the first ones where they take milliseconds:
//   warm up with each batch size that you serve. What is decided stays, for all sessions. Each answer
//   has the bits of stock TensorFlow with oneDNN on or with it off, operation by operation.
// - "stock": those that a session of the same process takes, so that answers have its bits.
//
// Without oneDNN (TF_ENABLE_ONEDNN_OPTS=0) both are the same.
//
// Errors: TF_INVALID_ARGUMENT for another name.
void SessionGroupOptions_SetKernels(SessionGroupOptions *options,
                                    const char *name,
                                    TF_Status *status);

// Switches an optimisation on or off, by name. All are on by default; none changes an answer, but as
// said below.
//
// - "serial_executor": with the executions "caller" and "worker", graphs are optimised once for all
//   sessions, and run node by node on one thread without TensorFlow's session in between. Graphs
//   with ref variables or state in their kernels, and requests with other RunOptions than a timeout,
//   are left to TensorFlow's session in any case: SessionGroup_Explain() says which and why;
// - "resolved_reads": variables are read without looking them up, locking them, or counting
//   references to what all sessions share, until a request writes any variable or table;
// - "fused_lookups": the rows of all embeddings of a graph are gathered in one go and, where these
//   are concatenated, to where they are needed;
// - "fast_memory": small tensors live in memory from lists that each thread has to itself,
//   very large ones in huge pages where the system gives them;
// - "shared_constants": constants of 64 KiB and more live once in the group, as variables do. Where
//   TensorFlow's session runs a request by its names, they can't be folded into others, so that
//   results may be rounded in another way;
// - "parallel_restore": a thread for each CPU that the process may use reads checkpoints, straight
//   into the memory of the variables. What these threads can't read, and what is damaged, is left to
//   TensorFlow's own kernel.
//
// Errors: TF_INVALID_ARGUMENT for another name.
void SessionGroupOptions_SetOptimization(SessionGroupOptions *options,
                                         const char *name,
                                         bool enabled,
                                         TF_Status *status);

// For the execution "worker": how many worker threads each session has (1 or more; default: as many
// as it has CPUs).
void SessionGroupOptions_SetWorkerThreads(SessionGroupOptions *options, int32_t worker_threads);

// For the execution "worker": how many requests may wait for a session's worker threads (1 or more;
// default: 1024), and whether one more waits for room, at most for its timeout (true), or fails at
// once with TF_RESOURCE_EXHAUSTED (false, the default).
void SessionGroupOptions_SetQueue(SessionGroupOptions *options,
                                  int32_t capacity,
                                  bool wait_when_full);

// How long SessionGroup_Close() lets requests that are running finish, in milliseconds, before it
// cancels them: 0 or more, 0 cancels at once; checked when a group is made. Default: 30000, and 0 for a
// group that a session target makes, as closing TensorFlow's own session cancels at once.
void SessionGroupOptions_SetDrainTimeout(SessionGroupOptions *options,
                                         int64_t milliseconds);

// Gives each session a compute stream of its own on a GPU, beside a CPU; default: false. All sessions
// on a GPU share one copy of its variables. Each sees one GPU, as "GPU:0".
//
// SessionGroupOptions_SetSessionNum() is then the number of sessions on each GPU, from 1. The group has
// that many times the number of GPUs, which take turns: with two, sessions 0, 2 and 4 are on the first
// one. The first session on each GPU is its leader.
//
// LoadSessionGroupFromSavedModel() restores and initialises on each leader. A request that may write
// variables of a GPU runs on all leaders, one after the other, or on the session that it names. No
// other request of the group runs meanwhile.
//
// TensorFlow fixes how many streams its GPUs have when it first makes them: groups that come later in
// the process use the same ones. With ENABLE_MPS=1 in the environment, it is an error that CUDA's MPS
// control daemon can't be reached, and CONTEXTS_COUNT_PER_GPU (4, unless it is set) is the number of
// sessions where nothing else says it.
//
// Errors, when a group is made: TF_FAILED_PRECONDITION where TensorFlow has no GPU support or finds no
// GPU, where the process' GPUs were laid out for fewer streams, or where there is no MPS daemon;
// TF_INVALID_ARGUMENT where the ConfigProto's gpu_options contradict it, or the environment does; and
// what TensorFlow says where it can't make as many virtual devices.
void SessionGroupOptions_SetMultiStream(SessionGroupOptions *options,
                                        bool multi_stream);

// For SessionGroupOptions_SetMultiStream(): the GPUs, by TensorFlow's numbers of them, which count
// those that CUDA_VISIBLE_DEVICES and gpu_options.visible_device_list leave, from 0. Default, and with
// none: all of these. Whether there is such a GPU is checked when a group is made.
//
// Errors: TF_INVALID_ARGUMENT for a negative number, or one that comes twice.
void SessionGroupOptions_SetGpuIds(SessionGroupOptions *options,
                                   const int32_t *gpu_ids,
                                   int32_t ngpu_ids,
                                   TF_Status *status);

// Deletes options; NULL is allowed. Groups made with them are not affected.
void SessionGroupOptions_Delete(SessionGroupOptions *options);

// Makes a group of `session_num` sessions, 1 to 1024, that have no graph yet; everything else as
// the environment and the defaults say. The caller deletes it with SessionGroup_Delete().
//
// `session_options` configures each session, as for TF_NewSession(). The sizes of the thread pools
// in its ConfigProto are per session; 0 is one thread for each CPU of the session, and a negative
// inter_op_parallelism_threads runs graphs on the calling thread, as in TensorFlow. Its target must be
// empty. It is copied.
//
// Errors: returns NULL, with TF_INVALID_ARGUMENT for options that are wrong, that contradict each
// other or that the machine can't give; TF_FAILED_PRECONDITION where the loaded TensorFlow is of
// another minor version than the one the library was built for.
SessionGroup *NewSessionGroup(const TF_SessionOptions *session_options,
                              int32_t session_num,
                              TF_Status *status);

// As NewSessionGroup(), with all options.
SessionGroup *NewSessionGroupWithOptions(const TF_SessionOptions *session_options,
                                         const SessionGroupOptions *options,
                                         TF_Status *status);

// Gives all sessions their graph: `graph_def_len` bytes of a serialised GraphDef. To initialise its
// variables and tables, run their initialisers once: all sessions see the result.
//
// Errors: TF_ALREADY_EXISTS where the group has a graph; TF_INVALID_ARGUMENT or TF_NOT_FOUND for a
// graph that TensorFlow refuses, upon which the group has none.
void SessionGroup_Create(SessionGroup *group,
                         const void *graph_def,
                         size_t graph_def_len,
                         TF_Status *status);

// Adds the nodes of a serialised GraphDef to the graph of all sessions. Requests may be running.
void SessionGroup_Extend(SessionGroup *group,
                         const void *graph_def,
                         size_t graph_def_len,
                         TF_Status *status);

// How many sessions the group has; 0 for NULL.
int32_t SessionGroup_SessionNum(const SessionGroup *group);

// The devices that each session sees, as TF_SessionListDevices(). The caller deletes the list with
// TF_DeleteDeviceList(). Returns NULL on failure.
TF_DeviceList *SessionGroup_ListDevices(SessionGroup *group, TF_Status *status);

// Closes the group: from now on requests fail with TF_FAILED_PRECONDITION; those that are running may
// finish first, as long as SessionGroupOptions_SetDrainTimeout() says; what then still runs is
// cancelled, and fails with TF_CANCELLED. Then frees sessions, threads, variables and tables. Closing
// twice is allowed. Must not be called from within a policy function of the group.
//
// Errors: TF_DEADLINE_EXCEEDED where requests still run five seconds after they were cancelled, since
// their operations can't be: the group stays closed, what it has stays in memory, and closing again
// once they have ended frees it; TF_FAILED_PRECONDITION in a process that was forked after the group was made; TF_INTERNAL
// where an exception has left a session in an unknown state, which then stays in memory, and so do
// variables and tables; others that TensorFlow has, which do not keep the group from closing.
void SessionGroup_Close(SessionGroup *group,
                        TF_Status *status);

// Closes the group, if that has not been done, and deletes it; NULL is allowed. Requests that run on
// although they were cancelled keep what they use in memory. No other call on the
// group may be under way: where threads may still be running requests, call SessionGroup_Close()
// first, which they survive, and join them.
void SessionGroup_Delete(SessionGroup *group);

// Makes a group that serves a SavedModel, ready to run: variables are restored and initialisers run
// once for all sessions. The counterpart of TF_LoadSessionFromSavedModel(). The caller deletes the
// group with SessionGroup_Delete().
//
// `session_options` is as for NewSessionGroup(). `run_options`, which may be NULL, is a serialised
// RunOptions for restoring. `export_dir` is the folder with saved_model.pb; `tags` are `ntags`
// strings, exactly those of the MetaGraphDef to load, mostly the one tag "serve". `meta_graph_def`
// may be NULL; otherwise it must be empty, and gets the serialised MetaGraphDef, whose signatures
// name the tensors to feed and to fetch.
//
// Errors: returns NULL, with TF_NOT_FOUND for a folder without a SavedModel or a SavedModel without
// such a MetaGraphDef; TensorFlow's own for files that can't be read; those of NewSessionGroup().
SessionGroup *LoadSessionGroupFromSavedModel(const TF_SessionOptions *session_options,
                                             const TF_Buffer *run_options,
                                             const char *export_dir,
                                             const char *const *tags,
                                             int32_t ntags,
                                             const SessionGroupOptions *options,
                                             TF_Buffer *meta_graph_def,
                                             TF_Status *status);

// Runs the graph on the session that the policy chooses; the counterpart of Session::Run(). May be
// called by any number of threads at a time.
//
// `run_options`, which may be NULL, is a serialised RunOptions. Feeds are `ninputs` pairs of a name,
// as "x:0" or "x", and a tensor; the tensors stay the caller's. Fetches are `noutputs` names, and
// `outputs` has room for as many tensors; they are written on success only and are then the
// caller's, to delete with TF_DeleteTensor(). Targets are `ntargets` names of operations to run
// without fetching anything. `run_metadata` may be NULL; otherwise it must be empty, and gets a
// serialised RunMetadata.
//
// Errors: TF_INVALID_ARGUMENT, TF_NOT_FOUND or TF_OUT_OF_RANGE for names, types or shapes that the
// graph refuses; TF_FAILED_PRECONDITION for a group without a graph, or
// that is closed; TF_DEADLINE_EXCEEDED where RunOptions.timeout_in_ms passed, the time in a queue
// counted in; TF_RESOURCE_EXHAUSTED where the queue is full; otherwise what the graph's operations
// report.
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

// As SessionGroup_Run(), on the session `session_id` modulo the number of sessions; where it is
// negative, on the one that the policy chooses.
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

// As SessionGroup_Run(), with the parameters of TF_SessionRun(). The outputs and operations may be
// those of any TF_Graph: their names count.
//
// Errors: also TF_OUT_OF_RANGE for a TF_Output whose index its operation does not have.
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

// Runs a request once on each session, on all of them at the same time, so that no later one pays
// for what a session does the first time. Parameters are as for SessionGroup_Run(); what is fetched
// is dropped. Run it for each signature before the group gets its first real request.
//
// Errors: those of SessionGroup_Run(), of any session.
void SessionGroup_WarmUp(SessionGroup *group,
                         const char *const *input_names,
                         TF_Tensor *const *inputs,
                         int32_t ninputs,
                         const char *const *output_names,
                         int32_t noutputs,
                         const char *const *target_names,
                         int32_t ntargets,
                         TF_Status *status);

// Makes the session target "session_group" known to TensorFlow: from then on NewSession(),
// TF_NewSession(), TF_LoadSessionFromSavedModel() and all that is built upon them make a group where
// SessionOptions.target asks for one:
//
// ```text
// session_group                        as many sessions as SESSION_GROUP_CPUSET has entries
// session_group:4                      4 sessions
// session_group://4?policy=least_loaded&execution=caller&cpuset=0-1;2-3;4-5;6-7
// ```
//
// Keys are policy, execution, kernels, cpuset, affinity (true or false), worker_threads, queue (its
// capacity), wait_when_full (true or false), drain_timeout_ms, multi_stream (true or false), gpu_ids (as
// "0,1"), as the setters of SessionGroupOptions, and the names of optimisations (true or false).
// Sessions with other targets are what they were.
//
// Closing such a session cancels the requests that are running, as with TensorFlow's own, unless
// drain_timeout_ms lets them finish.
//
// The shared library does this by itself when it is loaded. A program calls it that links
// libsession_group.a, or that uses nothing else of the library, lest the linker leaves it out. Doing it
// again does nothing.
//
// Errors: TF_FAILED_PRECONDITION where the loaded TensorFlow is of another minor version than the
// one the library was built for.
void SessionGroup_RegisterTarget(TF_Status *status);

// A new tensorflow::Session, as a pointer that C++ casts to that: session number `session_id` of the
// group, modulo their number, or, where it is negative, all of the group, as which each request goes
// to the session that the policy chooses. The caller deletes it, before the group. Thread-safe as
// any session. Closing all of the group closes the group; closing one session of it closes this
// object alone.
//
// Errors: returns NULL; TF_FAILED_PRECONDITION as SessionGroup_RegisterTarget().
void *SessionGroup_NewCppSession(SessionGroup *group,
                                 int32_t session_id,
                                 TF_Status *status);

// As SessionGroup_NewCppSession(), of the group that `session` is: a tensorflow::Session* that a
// session target or this library has made.
//
// Errors: returns NULL; TF_INVALID_ARGUMENT where `session` is no group.
void *SessionGroup_NewCppPart(void *session, int32_t session_id, TF_Status *status);

// The group that a tensorflow::Session* is, for the functions of this header. It stays the
// session's, and goes with it.
//
// Errors: returns NULL; TF_INVALID_ARGUMENT where `session` is no group.
SessionGroup *SessionGroup_FromCppSession(void *session, TF_Status *status);

// Prepares requests with these feeds, fetches and targets on all sessions of the group; the
// counterpart of Session::MakeCallable(). Names are as for SessionGroup_Run(). Where the graph, the
// execution and the options allow it (see "serial_executor" of
// SessionGroupOptions_SetOptimization()), sessions have their kernels when this returns, and no
// request looks up names; else requests run as by SessionGroup_Run().
//
// The caller deletes the callable with SessionGroupCallable_Delete(), before or after the group.
// What was prepared serves SessionGroup_Run() with the same names, too, and stays until the group is
// closed.
//
// Errors: returns NULL, with those of SessionGroup_Run() for names that the graph refuses.
SessionGroupCallable *SessionGroup_MakeCallable(SessionGroup *group,
                                                const char *const *feed_names,
                                                int32_t nfeeds,
                                                const char *const *fetch_names,
                                                int32_t nfetches,
                                                const char *const *target_names,
                                                int32_t ntargets,
                                                TF_Status *status);

// Runs the callable on the session that the policy chooses. May be called by any number of threads
// at a time. `inputs` are in the order of the feeds; the tensors stay the caller's. `outputs` has
// room for a tensor for each fetch; they are written on success only and are then the caller's, to
// delete with TF_DeleteTensor().
//
// Errors: TF_INVALID_ARGUMENT for a number of tensors other than that of feeds or fetches; those of
// SessionGroup_Run().
void SessionGroupCallable_Run(SessionGroupCallable *callable,
                              TF_Tensor *const *inputs,
                              int32_t ninputs,
                              TF_Tensor **outputs,
                              int32_t noutputs,
                              TF_Status *status);

// Deletes the callable; NULL is allowed. No run of it may be under way.
void SessionGroupCallable_Delete(SessionGroupCallable *callable);

// Fills `stats`, whose struct_size the caller has set, with what session `session_id` has done.
// Also after SessionGroup_Close(). The fields are read one after the other while requests go on.
//
// Errors: TF_OUT_OF_RANGE where the group has no such session; TF_INVALID_ARGUMENT where struct_size
// is too small to be that of any version.
void SessionGroup_GetStats(const SessionGroup *group,
                           int32_t session_id,
                           SessionGroupStats *stats,
                           TF_Status *status);

// Fills `stats`, whose struct_size the caller has set.
//
// Errors: TF_INVALID_ARGUMENT where struct_size is too small to be that of any version.
void SessionGroup_GetMemoryStats(SessionGroupMemoryStats *stats, TF_Status *status);

// The latency in nanoseconds that a share of 0 to 1 of a session's requests did not exceed, to 1/64
// of its value; 0 before the first answer, and on failure.
//
// Errors: TF_OUT_OF_RANGE where the group has no such session; TF_INVALID_ARGUMENT for a quantile
// outside of 0 to 1.
uint64_t SessionGroup_LatencyQuantile(const SessionGroup *group,
                                      int32_t session_id,
                                      double quantile,
                                      TF_Status *status);

// Fills `text`, which must be empty, with what all sessions have done in Prometheus' text exposition
// format 0.0.4: session_group_requests_total, by "code"; _requests_by_way_total, by "way": "program",
// "no_program" and so on, as in SessionGroupStats; _rejected_total, _on_pool_total,
// _unresolved_total, _unfused_total, _in_flight, _queued, _busy_seconds_total and the histogram
// _request_duration_seconds, with the labels "group" (its number in this process) and "session". Of multi-stream groups also session_group_stream_info, which is
// 1, with the labels "gpu", "virtual_device", "stream_group" and "leader", too. Of the process, what
// SessionGroup_GetMemoryStats() gives: session_group_large_tensors_in_use_bytes, _kept_bytes,
// _kept_limit_bytes, _hits_total and _misses_total. Not zero-terminated. Also after SessionGroup_Close().
void SessionGroup_MetricsText(const SessionGroup *group,
                              TF_Buffer *text,
                              TF_Status *status);

// Fills `json`, which must be empty, with a JSON object that says what the group is, and why:
//
// - "group": its number in this process, as in the names of its threads;
// - "tensorflow": the version that the library was built for;
// - "closed": true or false;
// - "execution": "caller", "worker" or "pool", what "auto" came to;
// - "kernels": "auto" or "stock", as SessionGroupOptions_SetKernels();
// - "policy": its name, "custom" for a function of the program's own;
// - "allowed_cpus": what the process might use when the group was made, as "0-7";
// - "optimizations": an array of the names of those that are on, as for
//   SessionGroupOptions_SetOptimization();
// - "queue": an object with "capacity" and "wait_when_full";
// - "kept_bytes": how many bytes of large tensors the process keeps for the next request at most;
// - "drain_timeout_ms": how long closing lets requests finish;
// - "why": an object with reasons in words for "cpus", "threads" and "execution";
// - "multi_stream": null, or an object with "gpu_ids", an array, and "mps": null, or an object with
//   "contexts_per_gpu", which is 1, and "contexts_asked_for", CONTEXTS_COUNT_PER_GPU or null;
// - "sessions": an array of objects with "session", its number; "cpus", as "0-3", null where it is
//   not pinned; "numa_nodes", the numbers of their nodes; "intra_op_threads"; "inter_op_threads";
//   "worker_threads"; in a multi-stream group also "gpu", "virtual_device", "stream_group", as in
//   SessionGroupStats, and "leader", true or false.
//
// Not zero-terminated. Newer versions may add fields. Also after SessionGroup_Close().
void SessionGroup_Describe(const SessionGroup *group, TF_Buffer *json, TF_Status *status);

// Fills `json`, which must be empty, with a JSON object that says what the group has prepared for
// requests, how it runs them, and why so:
//
// - "group", "closed": as SessionGroup_Describe();
// - "programs": whether the group runs programs; "why_not": null, or why it runs none, in words;
// - "signatures": an array of objects, one for each set of feeds, fetches and targets that a request or
//   a callable has had and that the group still remembers, which is so of the last several hundred.
//   Empty after SessionGroup_Close(). In each object:
//   - "feeds", "fetches", "targets": arrays of names, sorted;
//   - "runs_as": "program", or "names" where TensorFlow's session runs it by its names;
//   - "why": null, or in words why it is no program, with the name of the node that keeps it from being
//     one; "advice": null, or what to change in the model, in words;
//   - "writes": whether a run may change a variable or a table;
//   - "compile_ms": how many milliseconds preparing it took;
//   - of a program that a session has made ready, else null: "steps", how many steps a run has, the
//     bodies of loops counted once; "loops", how many; "may_wait", whether an operation may wait for
//     something, so that requests with a timeout run by their names; "resolved_variables", how many
//     variables are read without TensorFlow's locks; "fused_lookups", how many lookups are done
//     together; "constant_bytes", which all sessions share;
//   - "kernels": an array of objects, one for each operation that has a kernel of oneDNN's and one of
//     TensorFlow's own, and each size that was measured: "node", the operation's name (of several that
//     TensorFlow has fused, the last one's); "rows": the choice holds from so many rows to twice as many
//     less one; "onednn": whether oneDNN's kernel is taken. Empty with the kernels "stock";
// - "requests": an object with "runs", "on_pool", "unresolved" and "unfused" as in SessionGroupStats,
//   summed over all sessions, and "ways": an object with "program", "no_program" and so on;
// - "sessions": an array of such objects, each also with "session", its number.
//
// Not zero-terminated. Newer versions may add fields.
void SessionGroup_Explain(const SessionGroup *group,
                          TF_Buffer *json,
                          TF_Status *status);

// Fills `text` with what SessionGroup_MetricsText() gives, for all groups of the process that are not
// closed: also those that a session target has made, on which the program has no handle.
void SessionGroup_AllMetricsText(TF_Buffer *text,
                                 TF_Status *status);

// Fills `json` with a JSON array of what SessionGroup_Describe() gives, for all groups of the process
// that are not closed.
void SessionGroup_DescribeAll(TF_Buffer *json,
                              TF_Status *status);

// Fills `json` with a JSON array of what SessionGroup_Explain() gives, for all groups of the process that
// are not closed.
void SessionGroup_ExplainAll(TF_Buffer *json,
                             TF_Status *status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SESSION_GROUP_H_ */
