// The part of TensorFlow that has no C API, as the crate sees it: sessions that share the
// resources of one set of devices and keep everything else to themselves.
//
// Internal: src/tensorflow/shim.rs declares the same functions. Nothing here is exported. No
// function throws; one that can fail takes a TF_Status last and writes its result only on success.
// Those without a status call nothing that can throw: destructors, and accessors of what is there.
// Only where there is no memory for the few bytes of a status does the process end.
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
// A GraphDef, parsed and made fit for sharing.
typedef struct sg_graph sg_graph;
// A MetaGraphDef read from a SavedModel, with the folder to restore its variables from.
typedef struct sg_saved_model sg_saved_model;
// What a set of feeds, fetches and targets computes, optimised once for all sessions.
typedef struct sg_program sg_program;
// A program made ready for one session.
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
  int32_t inter_op_threads;  // below 0 where TensorFlow would run graphs on the calling thread
  int64_t operation_timeout_ms;
  int32_t has_target;      // 1 where SessionOptions.target is not empty
  int32_t has_named_pool;  // 1 where an inter-op pool is to be shared under a global name
  int32_t fills_metadata;  // 1 where each run fills its RunMetadata, whatever its RunOptions
  // Of session_inter_op_thread_pool: how many pools there are, how many of them are as large as
  // inter_op_threads says, and how many threads the others have.
  int64_t pools;
  int64_t pools_of_default_size;
  int64_t pool_threads;
  int32_t has_negative_pool;  // 1 where a pool has fewer than 0 threads
} sg_config;

// Calls a policy function of the program's own. Returns NULL on success; where it throws, a status
// with what(), to be deleted.
TF_Status* sg_choose(int32_t (*choose)(void* context, const void* load), void* context,
                     const void* load, int32_t* session);

// Writes a line to TensorFlow's log, at the level INFO.
void sg_log_info(sg_str line);

// To be deleted by TF_DeleteSessionOptions().
TF_SessionOptions* sg_session_options_copy(const TF_SessionOptions* options, TF_Status* status);
void sg_session_options_config(const TF_SessionOptions* options, sg_config* config);

// How many GPUs a session with these options would use; an error where there is none.
int32_t sg_count_gpus(const TF_SessionOptions* options, TF_Status* status);

// Where a session of a multi-stream group computes.
typedef struct sg_stream_slot {
  int32_t gpu;     // an index of the group's gpu_ids
  int32_t stream;  // below the number of streams that was asked for
} sg_stream_slot;

// Sessions take memory from FastAllocator where fast_memory is 1, else from the C library. With
// gpu_ids, each below sg_count_gpus(), the devices are one CPU and so many streams on each of these
// GPUs; without, all that TensorFlow finds.
sg_devices* sg_devices_new(const TF_SessionOptions* options, int32_t fast_memory,
                           const int32_t* gpu_ids, size_t ngpu_ids, int32_t streams,
                           TF_Status* status);
// The number of the virtual device that TensorFlow has there.
int32_t sg_devices_virtual_device(const sg_devices* devices, const sg_stream_slot* stream_slot);
// Waits until all streams have done what they were given.
void sg_devices_sync(const sg_devices* devices, TF_Status* status);
// Frees the variables, tables and all else that sessions share. These may refer to the kernels and
// functions of the session that made them, so all sessions must be closed, but not deleted yet.
void sg_devices_clear(sg_devices* devices, TF_Status* status);
// Around a request that may change variables. Those that begin after its end see what it did.
void sg_devices_begin_write(sg_devices* devices);
void sg_devices_end_write(sg_devices* devices);
// Restores checkpoints with so many CPUs, the bits of a mask of so many words. Without them, and
// where they can't, TensorFlow's own kernel does. No session over the devices may have been made
// yet.
void sg_devices_restore_with(sg_devices* devices, size_t cpus, const uint64_t* mask, size_t words,
                             TF_Status* status);
// How many threads have restored checkpoints so. Fills the array with the bytes that each has read,
// as far as there is room.
size_t sg_devices_restored_bytes(const sg_devices* devices, uint64_t* bytes, size_t threads);
// Gives `write` the memory of a resource variable on the CPU to write to, if it has this type, of a
// fixed size, and this shape, and nothing else refers to the memory: neither another variable or
// constant that shares it nor whoever reads it now. The container is the default one where it is
// empty. 1 where it was written, 0 where it could not be.
typedef void (*sg_write)(void* context, void* data, size_t size);
int32_t sg_devices_write_variable(sg_devices* devices, sg_str container, sg_str name, int32_t dtype,
                                  const int64_t* dims, size_t ndims, sg_write write, void* context,
                                  TF_Status* status);
// Tells them that variables may change from now on without being told.
void sg_devices_untrack(sg_devices* devices);
// All sessions over the devices must be deleted first.
void sg_devices_delete(sg_devices* devices);

// The memory of large tensors, of the whole process: large_blocks.h.
typedef struct sg_large_blocks {
  uint64_t in_use_bytes;
  uint64_t kept_bytes;
  uint64_t limit_bytes;  // on what is kept
  uint64_t hits;         // allocations served by memory that was kept
  uint64_t misses;       // those for which memory was mapped
  uint64_t moved;        // hits by memory that another CPU had last
} sg_large_blocks;
void sg_large_blocks_read(sg_large_blocks* stats);
void sg_large_blocks_set_limit(uint64_t bytes);
// Returns to the system what nobody has needed since the last call.
void sg_large_blocks_release_unused(void);

// Parses a GraphDef, gives each table of the main graph that has no shared_name one that all
// sessions agree on, and refuses iterators that have one.
sg_graph* sg_graph_parse(const void* graph_def, size_t size, TF_Status* status);
// Refuses what sessions over these devices can't run.
void sg_graph_check(const sg_graph* graph, const sg_devices* devices, TF_Status* status);
// Takes the graph's large constants out of its nodes; they live as long as the graph. Does nothing
// where there are other devices than the CPU. On failure, the graph is of no use any more.
void sg_graph_hide_constants(sg_graph* graph, sg_devices* devices, TF_Status* status);
// 1 where optimisers could make something of the values of hidden constants.
int32_t sg_graph_can_reveal(const sg_graph* graph);
// How many outputs a node of the graph has: -1 where there is no such node, INT32_MAX where that
// can't be told. Once this was asked, the graph stays as it is. Thread-safe.
int32_t sg_graph_outputs(const sg_graph* graph, sg_str node);
void sg_graph_delete(sg_graph* graph);

// Reads the MetaGraphDef with exactly these tags. Where meta_graph_def is not NULL, fills it.
sg_saved_model* sg_saved_model_read(sg_str export_dir, const sg_str* tags, size_t ntags,
                                    TF_Buffer* meta_graph_def, TF_Status* status);
// Takes the model's graph, made fit for sharing, out of it.
sg_graph* sg_saved_model_take_graph(sg_saved_model* model);
void sg_saved_model_delete(sg_saved_model* model);

sg_run_options* sg_run_options_parse(const void* data, size_t size, TF_Status* status);
sg_run_options* sg_run_options_copy(const sg_run_options* options, TF_Status* status);
void sg_run_options_delete(sg_run_options* options);
int64_t sg_run_options_timeout_ms(const sg_run_options* options);
void sg_run_options_set_timeout_ms(sg_run_options* options, int64_t timeout_ms);
// 1 where nothing is set but a timeout, and perhaps to run on the calling thread.
int32_t sg_run_options_is_plain(const sg_run_options* options);
int32_t sg_run_options_inter_op_pool(const sg_run_options* options);
void sg_run_options_set_inter_op_pool(sg_run_options* options, int32_t pool);

// Starts the threads before it returns; they inherit name and affinity mask of the calling thread.
sg_intra_op_pool* sg_intra_op_pool_new(const TF_SessionOptions* options, int32_t threads,
                                       TF_Status* status);
// Makes a session that computes on `pool`, which it owns from this call on, also on failure, and
// on an inter-op pool of its own, whose threads start and inherit as above. The stream_slot is NULL
// where the devices have no gpu_ids.
sg_session* sg_session_new(sg_devices* devices, const TF_SessionOptions* options,
                           const sg_stream_slot* stream_slot, sg_intra_op_pool* pool,
                           int32_t inter_op_threads, TF_Status* status);
// As sg_session_new, a session that compiles programs and runs nothing.
sg_session* sg_compiler_new(sg_devices* devices, const TF_SessionOptions* options,
                            const sg_stream_slot* stream_slot, sg_intra_op_pool* pool,
                            TF_Status* status);
// Cancels the runs that are under way, as far as their operations can be cancelled, those that
// begin later, and what runs in the background, such as an iterator's prefetching. May be called
// again. A session that an exception has left can't be closed any more, nor deleted: it stays.
void sg_session_close(sg_session* session, TF_Status* status);
int32_t sg_session_is_broken(const sg_session* session);
// Waits for the session's threads and frees it. No run may be under way.
void sg_session_delete(sg_session* session);

void sg_session_create(sg_session* session, const sg_graph* graph, TF_Status* status);
void sg_session_extend(sg_session* session, const sg_graph* graph, TF_Status* status);
// As these two, with the values that sg_graph_can_reveal() is about in place.
void sg_session_add_revealed(sg_session* session, const sg_graph* graph, int32_t extend,
                             TF_Status* status);
// Restores the model's variables and runs its initialisers on this session, whose graph must be
// the model's.
void sg_session_restore(sg_session* session, const sg_saved_model* model,
                        const sg_run_options* options, TF_Status* status);
// Thread-safe. `outputs` has room for noutputs tensors, which the caller will own. run_metadata
// may be NULL; otherwise its data must be NULL.
void sg_session_run(sg_session* session, const sg_run_options* options, const sg_str* input_names,
                    TF_Tensor* const* inputs, size_t ninputs, const sg_str* output_names,
                    TF_Tensor** outputs, size_t noutputs, const sg_str* targets, size_t ntargets,
                    TF_Buffer* run_metadata, TF_Status* status);
// Optimises what `compiler`, a session with these graphs, would run. Names are as in
// sg_session_run, no fetch twice.
sg_program* sg_program_compile(sg_session* compiler, const sg_graph* const* graphs, size_t ngraphs,
                               const sg_str* feeds, size_t nfeeds, const sg_str* fetches,
                               size_t nfetches, const sg_str* targets, size_t ntargets,
                               TF_Status* status);
// Calls `choice` with each choice between two kernels of a node that was measured: from how many
// rows on, and 1 where it is the kernel that a stock session of this process would not take.
typedef void (*sg_choice)(void* context, sg_str node, int64_t rows, int32_t is_other);
void sg_program_choices(const sg_program* program, sg_choice choice, void* context,
                        TF_Status* status);
// NULL where the program can be run by sg_instance; otherwise why only the session can run it.
// Valid as long as the program.
const char* sg_program_obstacle(const sg_program* program);
// 1 where running it may change a variable or a table.
int32_t sg_program_writes(const sg_program* program);
// 1 where that may be one that is not on the CPU.
int32_t sg_program_writes_elsewhere(const sg_program* program);
// 1 where TensorFlow's executor would need more of the calling thread's stack with each turn of a
// loop.
int32_t sg_program_recurses(const sg_program* program);
void sg_program_delete(sg_program* program);

// Makes a program without obstacle ready for a session. Both must outlive the instance.
sg_instance* sg_instance_new(sg_session* session, sg_program* program, int32_t resolve_reads,
                             int32_t fuse_lookups, int32_t choose_kernels, TF_Status* status);
// 1 where a run may have to wait for something, so that a timeout can't end it.
int32_t sg_instance_may_wait(const sg_instance* instance);

// What an instance does.
typedef struct sg_instance_facts {
  int64_t steps;
  int64_t loops;
  int64_t variables;       // read in the resolved way
  int64_t gathers;         // done together
  int64_t constant_bytes;  // of the program, shared with others that have the same
} sg_instance_facts;
void sg_instance_facts_get(const sg_instance* instance, sg_instance_facts* facts);

// What was unusual about a run: 1 where it was.
typedef struct sg_run_notes {
  int32_t unresolved;  // a variable was read in TensorFlow's way
  int32_t unfused;     // gathers were done one by one
} sg_run_notes;
// Where a request's tensors are among those of a program.
typedef struct sg_order {
  const uint32_t* feeds;  // for each feed of the program, its place in the request; NULL: the same
  const uint32_t*
      fetches;  // for each fetch of the request, its place in the program; NULL: the same
} sg_order;

// Thread-safe; runs on the calling thread. The caller will own the outputs. A timeout of 0 is none.
// Returns NULL on success; otherwise a status, to be deleted.
TF_Status* sg_instance_run(sg_instance* instance, TF_Tensor* const* inputs, size_t ninputs,
                           const sg_order* order, TF_Tensor** outputs, size_t noutputs,
                           int64_t timeout_ms, sg_run_notes* notes);
void sg_instance_delete(sg_instance* instance);

// The tensor's TF_DataType, as a number: it may be one that the caller's headers don't list.
int32_t sg_tensor_dtype(const TF_Tensor* tensor);

TF_DeviceList* sg_session_list_devices(sg_session* session, TF_Status* status);

// Groups as tensorflow::Sessions (cpp/session). What follows is about objects of Rust that C++
// holds, and the other way around.

// A group, and what it has prepared for some names.
typedef struct sg_group sg_group;
typedef struct sg_group_callable sg_group_callable;
// A request of TensorFlow's C++ API: its tensors, and room for what it gives.
typedef struct sg_tensors sg_tensors;
// What to do with one session of a group.
typedef struct sg_visit sg_visit;

typedef struct sg_names {
  const sg_str* feeds;
  size_t nfeeds;
  const sg_str* fetches;
  size_t nfetches;
  const sg_str* targets;
  size_t ntargets;
} sg_names;

// What C++ calls. A session number below 0 lets the policy choose. Functions that return a
// TF_Status return NULL on success; otherwise the status is the caller's to delete.
typedef struct sg_group_functions {
  // The group that a session target asks for. The options' own target must be empty.
  sg_group* (*make)(sg_str target, const TF_SessionOptions* options, TF_Status* status);
  int32_t (*session_num)(const sg_group* group);
  // Takes the graph, also on failure. Not 0 for extending.
  TF_Status* (*add_graph)(sg_group* group, sg_graph* graph, int32_t extend);
  // Runs `call` by sg_tensors_run_program() or sg_tensors_run_session(), on whichever thread.
  // `options` may be NULL.
  TF_Status* (*run)(sg_group* group, int32_t session, const sg_names* names,
                    const sg_run_options* options, int32_t wants_metadata, sg_tensors* call);
  sg_group_callable* (*make_callable)(sg_group* group, const sg_names* names, TF_Status* status);
  TF_Status* (*run_callable)(sg_group_callable* callable, int32_t session, int32_t wants_metadata,
                             sg_tensors* call);
  void (*delete_callable)(sg_group_callable* callable);
  // Calls sg_visit_session() with one session, which has the group's graph, if there is one. For
  // requests, which are counted as such, and may write.
  TF_Status* (*run_on_session)(sg_group* group, int32_t session, sg_visit* visit);
  // The same for what is no request.
  TF_Status* (*with_session)(sg_group* group, int32_t session, sg_visit* visit);
  // From now on variables may be written by who has looked behind the group.
  TF_Status* (*untrack)(sg_group* group);
  TF_Status* (*close)(sg_group* group);
  // Closes it, too.
  void (*remove)(sg_group* group);
} sg_group_functions;

// Makes TensorFlow know the session target "session_group", once for the process. The functions
// must stay.
void sg_register_target(const sg_group_functions* functions, TF_Status* status);

// A new tensorflow::Session, to be deleted as such, that is session number `session` of a group, or
// all of it where that is below 0. It does not own the group.
void* sg_group_session_new(sg_group* group, int32_t session, TF_Status* status);
// The group of a tensorflow::Session that is one, or a part of one; NULL for any other.
sg_group* sg_group_of_session(void* session);

TF_Status* sg_tensors_run_program(sg_tensors* call, sg_instance* instance, const sg_order* order,
                                  int64_t timeout_ms, sg_run_notes* notes);
TF_Status* sg_tensors_run_session(sg_tensors* call, sg_session* session,
                                  const sg_run_options* options);
// Drops what a run has given, before another.
void sg_tensors_clear_outputs(sg_tensors* call);
TF_Status* sg_visit_session(sg_visit* visit, sg_session* session, int32_t number);

#ifdef __cplusplus
}
#endif

#endif  // SESSION_GROUP_SHIM_H_
