// What the crate needs of TensorFlow and TensorFlow's C API does not have: sessions that share the
// resources of one set of devices and keep everything else to themselves.
//
// Internal: src/tensorflow/shim.rs declares the same functions, and the library exports none of
// them. No function throws. A function that can fail takes a TF_Status as its last parameter and
// writes its result only on success. Functions without a status call nothing that can throw: only
// destructors and accessors. The process ends only if there is no memory for the few bytes of a
// status.
#ifndef SESSION_GROUP_SHIM_H_
#define SESSION_GROUP_SHIM_H_

#include <stddef.h>
#include <stdint.h>

#include "tensorflow/c/c_api.h"

#ifdef __cplusplus
extern "C" {
#endif

// The devices that own what a group shares: variables and tables live in their resource managers.
typedef struct sg_devices sg_devices;
// A parsed GraphDef that sessions can share.
typedef struct sg_graph sg_graph;
// A MetaGraphDef read from a SavedModel, with the folder to restore its variables from.
typedef struct sg_saved_model sg_saved_model;
// What a set of feeds, fetches and targets computes, optimised once for all sessions of a group.
typedef struct sg_program sg_program;
// A program that is ready to run on one session.
typedef struct sg_instance sg_instance;
// A parsed RunOptions.
typedef struct sg_run_options sg_run_options;
// The intra-op threads of one session.
typedef struct sg_intra_op_pool sg_intra_op_pool;
// A TensorFlow session over wrappers of an sg_devices, with thread pools of its own.
typedef struct sg_session sg_session;

// A string that is not zero-terminated; Rust's &str.
typedef struct sg_str {
  const char* data;
  size_t size;
} sg_str;

// What the caller's ConfigProto says about a session.
typedef struct sg_config {
  int32_t intra_op_threads;
  int32_t inter_op_threads;  // below 0 if TensorFlow would run graphs on the calling thread
  int64_t operation_timeout_ms;
  int32_t has_target;      // 1 if SessionOptions.target is not empty
  int32_t has_named_pool;  // 1 if an inter-op pool has a global name, under which it is shared
  int32_t fills_metadata;  // 1 if each run fills its RunMetadata, whatever its RunOptions
  // About session_inter_op_thread_pool: the number of pools, the number of pools with
  // inter_op_threads threads, and the total number of threads of the others.
  int64_t pools;
  int64_t pools_of_default_size;
  int64_t pool_threads;
  int32_t has_negative_pool;  // 1 if a pool has fewer than 0 threads
} sg_config;

// Calls a policy function of the calling program. Returns NULL on success. If the function throws,
// returns a status with what(), which the caller deletes.
TF_Status* sg_choose(int32_t (*choose)(void* context, const void* load), void* context,
                     const void* load, int32_t* session);

// Writes a line to TensorFlow's log at the level INFO.
void sg_log_info(sg_str line);

// The caller deletes the copy with TF_DeleteSessionOptions().
TF_SessionOptions* sg_session_options_copy(const TF_SessionOptions* options, TF_Status* status);
void sg_session_options_config(const TF_SessionOptions* options, sg_config* config);

// The number of GPUs that a session with these options would use; an error if there is no GPU.
int32_t sg_count_gpus(const TF_SessionOptions* options, TF_Status* status);

// Where a session of a multi-stream group computes.
typedef struct sg_stream_slot {
  int32_t gpu;     // an index into the group's gpu_ids
  int32_t stream;  // less than the `streams` given to sg_devices_new()
} sg_stream_slot;

// If fast_memory is 1, sessions take memory from FastAllocator, otherwise from the C library. With
// gpu_ids, each less than sg_count_gpus(), the devices are one CPU and `streams` streams on each of
// these GPUs. Without gpu_ids, the devices are all that TensorFlow finds.
sg_devices* sg_devices_new(const TF_SessionOptions* options, int32_t fast_memory,
                           const int32_t* gpu_ids, size_t ngpu_ids, int32_t streams,
                           TF_Status* status);
// The number of TensorFlow's virtual device for this stream.
int32_t sg_devices_virtual_device(const sg_devices* devices, const sg_stream_slot* stream_slot);
// Waits until all streams have finished their work.
void sg_devices_sync(const sg_devices* devices, TF_Status* status);
// Frees the variables, tables and everything else that sessions share. All sessions must be closed
// but not yet deleted, because these resources may refer to kernels and functions of the session
// that made them.
void sg_devices_clear(sg_devices* devices, TF_Status* status);
// Called before and after a request that may change variables. Requests that begin after
// sg_devices_end_write() see the changes.
void sg_devices_begin_write(sg_devices* devices);
void sg_devices_end_write(sg_devices* devices);
// From now on, memory of 1 MiB and more that is restored, that holds constants, or that is
// allocated while the group is loading, is spread over `n` NUMA nodes, page by page. Must be called
// before any session over the devices is made.
void sg_devices_spread_over(sg_devices* devices, const uint32_t* nodes, size_t n,
                            TF_Status* status);
void sg_devices_set_loading(sg_devices* devices, int32_t is_loading);
// The first error of the system's in spreading memory, as an errno; 0 without one.
int32_t sg_devices_spread_error(const sg_devices* devices);
// From now on, restores checkpoints with `cpus` threads on the CPUs of `mask`, which has `words`
// words. TensorFlow's own kernel restores what these threads can't, and everything if this function
// was not called. Must be called before any session over the devices is made.
void sg_devices_restore_with(sg_devices* devices, size_t cpus, const uint64_t* mask, size_t words,
                             TF_Status* status);
// The number of threads that have restored checkpoints in this way. Writes how many bytes each of
// them has read to `bytes`, up to `threads` of them.
size_t sg_devices_restored_bytes(const sg_devices* devices, uint64_t* bytes, size_t threads);
// Lets `write` write into the memory of a resource variable on the CPU. The variable must have this
// type, which must have elements of a fixed size, and this shape. Nothing else may refer to its
// memory, such as another variable or constant that shares it, or a request that reads it. An empty
// container is the default one. Returns 1 if `write` was called, otherwise 0.
typedef void (*sg_write)(void* context, void* data, size_t size);
int32_t sg_devices_write_variable(sg_devices* devices, sg_str container, sg_str name, int32_t dtype,
                                  const int64_t* dims, size_t ndims, sg_write write, void* context,
                                  TF_Status* status);
// From now on, variables may change without sg_devices_begin_write().
void sg_devices_untrack(sg_devices* devices);
// All sessions over the devices must be deleted first.
void sg_devices_delete(sg_devices* devices);

// The memory of large tensors in the whole process: see large_blocks.h.
typedef struct sg_large_blocks {
  uint64_t in_use_bytes;
  uint64_t kept_bytes;
  uint64_t limit_bytes;  // on kept_bytes
  uint64_t hits;         // allocations that kept memory served
  uint64_t misses;       // allocations that mapped memory
  uint64_t moved;        // hits with memory that another CPU used last
} sg_large_blocks;
void sg_large_blocks_read(sg_large_blocks* stats);
void sg_large_blocks_set_limit(uint64_t bytes);
// Returns memory to the system that was not needed since the last call.
void sg_large_blocks_release_unused(void);

// Parses a GraphDef. Gives each table of the main graph without a shared_name one that all sessions
// agree on, and refuses iterators with a shared_name.
sg_graph* sg_graph_parse(const void* graph_def, size_t size, TF_Status* status);
// Refuses what sessions over these devices can't run.
void sg_graph_check(const sg_graph* graph, const sg_devices* devices, TF_Status* status);
// Makes resource variables of the graph's reference variables, as far as they can be. `earlier` are
// the graphs that it extends. After a failure, the graph can't be used.
void sg_graph_convert_variables(sg_graph* graph, const sg_graph* const* earlier, size_t nearlier,
                                TF_Status* status);
// Takes the graph's large constants out of its nodes. The constants live as long as the graph. Does
// nothing if there are devices other than the CPU. After a failure, the graph can't be used.
void sg_graph_hide_constants(sg_graph* graph, sg_devices* devices, TF_Status* status);
// 1 if optimisers could use the values of hidden constants.
int32_t sg_graph_can_reveal(const sg_graph* graph);
// The number of outputs of a node: -1 if the graph has no such node, INT32_MAX if the number is not
// known. The graph must not change after the first call. Thread-safe.
int32_t sg_graph_outputs(const sg_graph* graph, sg_str node);
void sg_graph_delete(sg_graph* graph);

// Reads the MetaGraphDef with exactly these tags, and writes it to meta_graph_def unless that is
// NULL.
sg_saved_model* sg_saved_model_read(sg_str export_dir, const sg_str* tags, size_t ntags,
                                    TF_Buffer* meta_graph_def, TF_Status* status);
// Takes the model's graph out of the model. Sessions can share it.
sg_graph* sg_saved_model_take_graph(sg_saved_model* model);
void sg_saved_model_delete(sg_saved_model* model);

sg_run_options* sg_run_options_parse(const void* data, size_t size, TF_Status* status);
sg_run_options* sg_run_options_copy(const sg_run_options* options, TF_Status* status);
void sg_run_options_delete(sg_run_options* options);
int64_t sg_run_options_timeout_ms(const sg_run_options* options);
void sg_run_options_set_timeout_ms(sg_run_options* options, int64_t timeout_ms);
// 1 if nothing is set but a timeout, and perhaps that the run stays on the calling thread.
int32_t sg_run_options_is_plain(const sg_run_options* options);
int32_t sg_run_options_inter_op_pool(const sg_run_options* options);
void sg_run_options_set_inter_op_pool(sg_run_options* options, int32_t pool);

// Starts the threads before it returns. They inherit the name and the affinity mask of the calling
// thread.
sg_intra_op_pool* sg_intra_op_pool_new(const TF_SessionOptions* options, int32_t threads,
                                       TF_Status* status);
// Ends the threads of a pool that no session took.
void sg_intra_op_pool_delete(sg_intra_op_pool* pool);

// Makes a session that computes on `pool` and on an inter-op pool of its own, whose threads start
// and inherit as above. Takes ownership of `pool`, even on failure. The stream_slot is NULL if the
// devices have no gpu_ids.
sg_session* sg_session_new(sg_devices* devices, const TF_SessionOptions* options,
                           const sg_stream_slot* stream_slot, sg_intra_op_pool* pool,
                           int32_t inter_op_threads, TF_Status* status);
// Like sg_session_new(), but the session only compiles programs.
sg_session* sg_compiler_new(sg_devices* devices, const TF_SessionOptions* options,
                            const sg_stream_slot* stream_slot, sg_intra_op_pool* pool,
                            TF_Status* status);
// Cancels the current runs, as far as their operations can be cancelled, all later runs, and
// background work such as the prefetching of an iterator. May be called again. After an exception
// in a session, it can be neither closed nor deleted: it is leaked on purpose.
void sg_session_close(sg_session* session, TF_Status* status);
int32_t sg_session_is_broken(const sg_session* session);
// Waits for the session's threads and frees the session. No run may be in progress.
void sg_session_delete(sg_session* session);

void sg_session_create(sg_session* session, const sg_graph* graph, TF_Status* status);
void sg_session_extend(sg_session* session, const sg_graph* graph, TF_Status* status);
// Like these two, but with the values of the constants that sg_graph_can_reveal() asks about.
void sg_session_add_revealed(sg_session* session, const sg_graph* graph, int32_t extend,
                             TF_Status* status);
// Restores the model's variables and runs its initialisers on this session. The session's graph
// must be the model's.
void sg_session_restore(sg_session* session, const sg_saved_model* model,
                        const sg_run_options* options, TF_Status* status);
// Thread-safe. `outputs` has room for noutputs tensors, which the caller then owns. run_metadata
// may be NULL; otherwise its data must be NULL.
void sg_session_run(sg_session* session, const sg_run_options* options, const sg_str* input_names,
                    TF_Tensor* const* inputs, size_t ninputs, const sg_str* output_names,
                    TF_Tensor** outputs, size_t noutputs, const sg_str* targets, size_t ntargets,
                    TF_Buffer* run_metadata, TF_Status* status);
// Optimises what `compiler`, a session with these graphs, would run. Names are as in
// sg_session_run(), without a duplicate fetch. Does lookups in partitioned variables at once if
// `fuse_lookups` is not 0.
sg_program* sg_program_compile(sg_session* compiler, const sg_graph* const* graphs, size_t ngraphs,
                               const sg_str* feeds, size_t nfeeds, const sg_str* fetches,
                               size_t nfetches, const sg_str* targets, size_t ntargets,
                               int32_t fuse_lookups, TF_Status* status);
// Calls `choice` for each measured choice between two kernels of a node: with the smallest number
// of rows, and 1 if it is the kernel that a stock session of this process would not use.
typedef void (*sg_choice)(void* context, sg_str node, int64_t rows, int32_t is_other);
void sg_program_choices(const sg_program* program, sg_choice choice, void* context,
                        TF_Status* status);
// NULL if an sg_instance can run the program, otherwise why only the session can run it. The text
// lives as long as the program.
const char* sg_program_obstacle(const sg_program* program);
// 1 if a run may change a variable or a table.
int32_t sg_program_writes(const sg_program* program);
// 1 if a run may change a variable or a table that is not on the CPU.
int32_t sg_program_writes_elsewhere(const sg_program* program);
// 1 if TensorFlow's executor would use more of the calling thread's stack with each iteration of a
// loop.
int32_t sg_program_recurses(const sg_program* program);
void sg_program_delete(sg_program* program);

// Prepares a program without an obstacle for a session. Both must outlive the instance. Its callers
// have so many `stripes`.
sg_instance* sg_instance_new(sg_session* session, sg_program* program, uint32_t stripes,
                             int32_t resolve_reads, int32_t fuse_lookups, int32_t choose_kernels,
                             TF_Status* status);
// 1 if a run may wait for something, so that a timeout can't end it on the calling thread.
int32_t sg_instance_may_wait(const sg_instance* instance);

// What explain says about an instance.
typedef struct sg_instance_facts {
  int64_t steps;
  int64_t loops;
  int64_t variables;       // read by ResolvedReads
  int64_t tables;          // the same
  int64_t gathers;         // done by Lookups
  int64_t constant_bytes;  // of the program; other programs with the same constants share them
} sg_instance_facts;
void sg_instance_facts_get(const sg_instance* instance, sg_instance_facts* facts);

// What was unusual about a run: 1 if it happened.
typedef struct sg_run_notes {
  int32_t unresolved;  // a variable or table was read by TensorFlow's kernel
  int32_t unfused;     // gathers ran one by one
} sg_run_notes;
// How a request runs a program.
typedef struct sg_run {
  // How its tensors map to those of the program. NULL stands for the same order.
  const uint32_t* feeds;    // by feed of the program, its index in the request
  const uint32_t* fetches;  // by fetch of the request, its index in the program
  int64_t timeout_ms;       // 0 for none
  // Of the calling thread, less than the instance's `stripes`. Threads of different stripes write
  // to different cache lines.
  uint32_t stripe;
} sg_run;

// Thread-safe. Runs on the calling thread. The caller owns the outputs. Returns NULL on success,
// otherwise a status, which the caller deletes.
TF_Status* sg_instance_run(sg_instance* instance, TF_Tensor* const* inputs, size_t ninputs,
                           const sg_run* run, TF_Tensor** outputs, size_t noutputs,
                           sg_run_notes* notes);
void sg_instance_delete(sg_instance* instance);

// The tensor's TF_DataType as a number, because the caller's headers may not list it.
int32_t sg_tensor_dtype(const TF_Tensor* tensor);

TF_DeviceList* sg_session_list_devices(sg_session* session, TF_Status* status);

// Groups as tensorflow::Sessions (cpp/session). From here on, C++ holds objects of Rust, and Rust
// holds objects of C++.

// A group, and a callable of a group.
typedef struct sg_group sg_group;
typedef struct sg_group_callable sg_group_callable;
// A request of TensorFlow's C++ API: its inputs and the room for its outputs.
typedef struct sg_tensors sg_tensors;
// A function that C++ wants to call with one session of a group.
typedef struct sg_visit sg_visit;

typedef struct sg_names {
  const sg_str* feeds;
  size_t nfeeds;
  const sg_str* fetches;
  size_t nfetches;
  const sg_str* targets;
  size_t ntargets;
} sg_names;

// The functions that C++ calls. If a session number is below 0, the policy chooses the session.
// Functions that return a TF_Status return NULL on success; otherwise the caller deletes the
// status.
typedef struct sg_group_functions {
  // Makes the group that a session target describes. The target of the options must be empty.
  sg_group* (*make)(sg_str target, const TF_SessionOptions* options, TF_Status* status);
  int32_t (*session_num)(const sg_group* group);
  // Takes ownership of the graph, even on failure. `extend` is not 0 to extend the graph of the
  // group.
  TF_Status* (*add_graph)(sg_group* group, sg_graph* graph, int32_t extend);
  // Runs `call` with sg_tensors_run_program() or sg_tensors_run_session(), on any thread. `options`
  // may be NULL.
  TF_Status* (*run)(sg_group* group, int32_t session, const sg_names* names,
                    const sg_run_options* options, int32_t wants_metadata, sg_tensors* call);
  sg_group_callable* (*make_callable)(sg_group* group, const sg_names* names, TF_Status* status);
  TF_Status* (*run_callable)(sg_group_callable* callable, int32_t session, int32_t wants_metadata,
                             sg_tensors* call);
  void (*delete_callable)(sg_group_callable* callable);
  // Calls sg_visit_session() with one session, which has the graph of the group if there is one.
  // For requests: the group counts them, and they may write variables.
  TF_Status* (*run_on_session)(sg_group* group, int32_t session, sg_visit* visit);
  // The same for everything that is not a request.
  TF_Status* (*with_session)(sg_group* group, int32_t session, sg_visit* visit);
  // From now on, code outside of the group may write variables.
  TF_Status* (*untrack)(sg_group* group);
  TF_Status* (*close)(sg_group* group);
  // Closes and deletes the group.
  void (*remove)(sg_group* group);
} sg_group_functions;

// Registers the session target "session_group" with TensorFlow, once for the process. The functions
// must live as long as the process.
void sg_register_target(const sg_group_functions* functions, TF_Status* status);

// A new tensorflow::Session, which the caller deletes as such. It is session number `session` of a
// group, or the whole group if that is below 0. It does not own the group.
void* sg_group_session_new(sg_group* group, int32_t session, TF_Status* status);
// The group of a tensorflow::Session that is a group or one session of a group; NULL for any other
// session.
sg_group* sg_group_of_session(void* session);

TF_Status* sg_tensors_run_program(sg_tensors* call, sg_instance* instance, const sg_run* run,
                                  sg_run_notes* notes);
TF_Status* sg_tensors_run_session(sg_tensors* call, sg_session* session,
                                  const sg_run_options* options);
// Drops the outputs of a run before the request runs again.
void sg_tensors_clear_outputs(sg_tensors* call);
TF_Status* sg_visit_session(sg_visit* visit, sg_session* session, int32_t number);

#ifdef __cplusplus
}
#endif

#endif  // SESSION_GROUP_SHIM_H_
