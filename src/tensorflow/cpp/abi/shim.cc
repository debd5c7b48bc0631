#include "abi/shim.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "compile/graph_capture.h"
#include "devices/host_allocator.h"
#include "abi/shim_internal.h"
#include "graph/split_gathers.h"
#include "tensorflow/c/tf_tensor_internal.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/cc/saved_model/reader.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/common_runtime/direct_session.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

using session_group::Caught;
using session_group::Guard;
using session_group::Prepare;
using session_group::SetStatus;
using tensorflow::Device;
using tensorflow::Tensor;

namespace {

constexpr char kTask[] = "/job:localhost/replica:0/task:0";

std::string String(sg_str s) { return std::string(s.data, s.size); }

std::vector<std::string> Strings(const sg_str* strings, size_t n) {
  std::vector<std::string> result;
  result.reserve(n);
  for (size_t i = 0; i < n; ++i) result.emplace_back(strings[i].data, strings[i].size);
  return result;
}

// protobuf counts bytes in an int.
absl::Status Parse(const void* data, size_t size, const char* what, const char* advice,
                   tensorflow::protobuf::MessageLite* message) {
  if (size > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " has ", size, " bytes, but a protocol buffer has less than 2 GiB: ", advice));
  }
  if (!tensorflow::ParseProtoUnlimited(message, data, size)) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " is not a serialised ", message->GetTypeName().substr(11), " (", size, " bytes)"));
  }
  return absl::OkStatus();
}

absl::Status FillBuffer(const tensorflow::protobuf::MessageLite& message, TF_Buffer* buffer) {
  const size_t size = message.ByteSizeLong();
  void* data = malloc(size > 0 ? size : 1);
  if (data == nullptr || !message.SerializeToArray(data, size)) {
    free(data);
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot serialise ", size, " bytes of ", message.GetTypeName()));
  }
  if (buffer->data_deallocator != nullptr) {
    buffer->data_deallocator(const_cast<void*>(buffer->data), buffer->length);
  }
  buffer->data = data;
  buffer->length = size;
  buffer->data_deallocator = [](void* data, size_t) { free(data); };
  return absl::OkStatus();
}

// Gives fetched tensors to the caller: all of them or, on failure, none.
absl::Status HandOver(absl::Span<const Tensor> fetched, TF_Tensor** outputs) {
  for (size_t i = 0; i < fetched.size(); ++i) {
    absl::Status converted;
    outputs[i] = tensorflow::TF_TensorFromTensor(fetched[i], &converted);
    if (!converted.ok()) {
      while (i > 0) {
        TF_DeleteTensor(outputs[--i]);
        outputs[i] = nullptr;
      }
      return converted;
    }
  }
  return absl::OkStatus();
}

// A table without a shared_name gets one that is private to its kernel, and kernels are private to
// their session, so the table that one session initialises would not be there for the others. A
// name made of the node's, which is unique in a graph, does within the group. Function bodies are
// left alone: node names are not unique across them.
void ShareTables(tensorflow::GraphDef* graph) {
  for (tensorflow::NodeDef& node : *graph->mutable_node()) {
    const tensorflow::OpDef* op = nullptr;
    if (!tensorflow::OpRegistry::Global()->LookUpOpDef(node.op(), &op).ok()) continue;
    const auto& attrs = op->attr();
    // Only tables have this attribute, which says what an empty shared_name means.
    const bool is_table = std::any_of(attrs.begin(), attrs.end(), [](const auto& attr) {
      return attr.name() == "use_node_name_sharing";
    });
    if (!is_table) continue;
    const auto by_node_name = node.attr().find("use_node_name_sharing");
    if (by_node_name != node.attr().end() && by_node_name->second.b()) continue;
    std::string* shared_name = (*node.mutable_attr())["shared_name"].mutable_s();
    if (shared_name->empty()) *shared_name = absl::StrCat("session_group/", node.name());
  }
}

// An iterator runs functions on the device and the threads of the session that made it, also in the
// background. Held by other sessions, it would outlive these.
absl::Status RefuseSharedIterators(
    const tensorflow::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes) {
  for (const tensorflow::NodeDef& node : nodes) {
    const auto shared_name = node.attr().find("shared_name");
    if (absl::StrContains(node.op(), "Iterator") && shared_name != node.attr().end() &&
        !shared_name->second.s().empty()) {
      return absl::UnimplementedError(absl::StrCat(
          "node ", node.name(), " (", node.op(), ") is an iterator with the shared_name \"",
          shared_name->second.s(),
          "\", which the sessions of a group can't share: feed tensors instead, or take the name "
          "away for an iterator in each session"));
    }
  }
  return absl::OkStatus();
}

// TensorFlow's optimisers end the process where an attribute is missing that an operation must
// have.
absl::Status CheckAttributes(
    const tensorflow::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes) {
  for (const tensorflow::NodeDef& node : nodes) {
    const tensorflow::OpDef* op = nullptr;
    // TensorFlow says itself what it does not know.
    if (!tensorflow::OpRegistry::Global()->LookUpOpDef(node.op(), &op).ok()) continue;
    for (const tensorflow::OpDef::AttrDef& attr : op->attr()) {
      if (!attr.has_default_value() && !node.attr().contains(attr.name())) {
        return absl::InvalidArgumentError(absl::StrCat("node ", node.name(), " (", node.op(),
                                                       ") has no attribute ", attr.name(),
                                                       ": export the model again"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNodes(const tensorflow::protobuf::RepeatedPtrField<tensorflow::NodeDef>& nodes) {
  absl::Status status = CheckAttributes(nodes);
  return status.ok() ? RefuseSharedIterators(nodes) : status;
}

}  // namespace

absl::Status session_group::Prepare(tensorflow::GraphDef* graph) {
  absl::Status status = CheckNodes(graph->node());
  for (const tensorflow::FunctionDef& function : graph->library().function()) {
    status.Update(CheckNodes(function.node_def()));
  }
  if (!status.ok()) return status;
  ShareTables(graph);
  SplitGathers(graph);
  return status;
}

TF_Status* sg_choose(int32_t (*choose)(void* context, const void* load), void* context,
                     const void* load, int32_t* session) {
  return session_group::NewStatus(Caught([&] {
    *session = choose(context, load);
    return absl::OkStatus();
  }));
}

void sg_log_info(sg_str line) {
  try {
    LOG(INFO) << absl::string_view(line.data, line.size);
  } catch (...) {
    // A line that can't be logged is no reason to fail.
  }
}

TF_SessionOptions* sg_session_options_copy(const TF_SessionOptions* options, TF_Status* status) {
  std::unique_ptr<TF_SessionOptions> copy;
  Guard(status, [&] {
    copy = std::make_unique<TF_SessionOptions>(*options);
    return absl::OkStatus();
  });
  return copy.release();
}

void sg_session_options_config(const TF_SessionOptions* options, sg_config* config) {
  const tensorflow::ConfigProto& proto = options->options.config;
  config->intra_op_threads = proto.intra_op_parallelism_threads();
  config->inter_op_threads = proto.inter_op_parallelism_threads();
  config->operation_timeout_ms = proto.operation_timeout_in_ms();
  config->has_target = options->options.target.empty() ? 0 : 1;
  config->fills_metadata =
      proto.graph_options().build_cost_model() > 0 || proto.experimental().has_session_metadata();
  const auto& pools = proto.session_inter_op_thread_pool();
  // Then TensorFlow takes a negative number for none.
  if (proto.use_per_session_threads() || !pools.empty()) {
    config->inter_op_threads = std::max(config->inter_op_threads, 0);
  }
  config->pools = pools.size();
  config->pools_of_default_size = 0;
  config->pool_threads = 0;
  config->has_negative_pool = 0;
  for (const auto& pool : pools) {
    config->pools_of_default_size += pool.num_threads() == 0;
    config->pool_threads += std::max(pool.num_threads(), 0);
    config->has_negative_pool |= pool.num_threads() < 0;
  }
  config->has_named_pool = std::any_of(
      pools.begin(), pools.end(), [](const auto& pool) { return !pool.global_name().empty(); });
}

int32_t sg_count_gpus(const TF_SessionOptions* options, TF_Status* status) {
  int count = 0;
  Guard(status, [&] { return session_group::VirtualGpus::Count(options->options, &count); });
  return count;
}

sg_devices* sg_devices_new(const TF_SessionOptions* options, int32_t fast_memory,
                           const int32_t* gpu_ids, size_t ngpu_ids, int32_t streams,
                           TF_Status* status) {
  std::unique_ptr<sg_devices> devices;
  Guard(status, [&]() -> absl::Status {
    tensorflow::Allocator* host = session_group::HostAllocator::Get();
    if (fast_memory) host = session_group::FastAllocator::Get();
    devices = std::make_unique<sg_devices>(host);
    if (fast_memory) devices->keeps_blocks.emplace();
    // The first device of a process makes the intra-op pool of all stock sessions. Its size is not
    // for a group to set, which has pools of its own.
    tensorflow::SessionOptions own = options->options;
    own.config.set_intra_op_parallelism_threads(0);
    if (ngpu_ids == 0) {
      return tensorflow::DeviceFactory::AddDevices(own, kTask, &devices->devices);
    }
    absl::Status made =
        session_group::VirtualGpus::Get(options->options, streams, &devices->virtual_gpus);
    if (!made.ok()) return made;
    for (size_t i = 0; i < ngpu_ids; ++i) {
      devices->gpus.push_back({gpu_ids[i], std::make_unique<tensorflow::ResourceMgr>()});
    }
    devices->streams = streams;
    (*own.config.mutable_device_count())["CPU"] = 1;
    return tensorflow::DeviceFactory::AddCpuDevices(own, kTask, &devices->devices);
  });
  return TF_GetCode(status) == TF_OK ? devices.release() : nullptr;
}

int32_t sg_devices_virtual_device(const sg_devices* devices, const sg_seat* seat) {
  return devices->virtual_gpus->Number(devices->gpus[seat->gpu].id, seat->stream);
}

void sg_devices_sync(const sg_devices* devices, TF_Status* status) {
  Guard(status, [&] {
    absl::Status synced;
    for (const sg_devices::Gpu& gpu : devices->gpus) {
      for (int32_t stream = 0; stream < devices->streams; ++stream) {
        synced.Update(devices->virtual_gpus->device(gpu.id, stream)->Sync());
      }
    }
    return synced;
  });
}

void sg_graph_check(const sg_graph* graph, const sg_devices* devices, TF_Status* status) {
  Guard(status, [&] {
    return devices->gpus.empty() ? absl::OkStatus()
                                 : session_group::VirtualGpus::CheckGraph(graph->def);
  });
}

void sg_devices_clear(sg_devices* devices, TF_Status* status) {
  Guard(status, [&] {
    for (const auto& device : devices->devices) device->ClearResourceMgr();
    for (const sg_devices::Gpu& gpu : devices->gpus) gpu.resources->Clear();
    return absl::OkStatus();
  });
}

void sg_devices_begin_write(sg_devices* devices) { devices->writes.Begin(); }

void sg_devices_end_write(sg_devices* devices) { devices->writes.End(); }

void sg_devices_restore_with(sg_devices* devices, size_t cpus, const uint64_t* mask, size_t words,
                             TF_Status* status) {
  Guard(status, [&] {
    devices->restorer.SetCpus(cpus, mask, words);
    return absl::OkStatus();
  });
}

size_t sg_devices_restored_bytes(const sg_devices* devices, uint64_t* bytes, size_t threads) {
  return devices->restorer.BytesByThread(absl::MakeSpan(bytes, threads));
}

int32_t sg_devices_write_variable(sg_devices* devices, sg_str container, sg_str name, int32_t dtype,
                                  const int64_t* dims, size_t ndims, sg_write write, void* context,
                                  TF_Status* status) {
  int32_t written = 0;
  Guard(status, [&]() -> absl::Status {
    if (devices->devices.size() != 1 || !devices->gpus.empty()) return absl::OkStatus();
    // Sessions let go of what they keep.
    devices->writes.Add();
    tensorflow::ResourceMgr* resources = devices->devices[0]->resource_manager();
    const std::string in = container.size == 0 ? resources->default_container() : String(container);
    tensorflow::Var* found = nullptr;
    if (!resources->Lookup(in, String(name), &found).ok()) return absl::OkStatus();
    tensorflow::core::RefCountPtr<tensorflow::Var> var(found);
    // Whoever reads the variable holds this lock, or a reference to its memory.
    tensorflow::mutex_lock lock(*var->mu());
    Tensor* value = var->tensor();
    const tensorflow::DataType type = static_cast<tensorflow::DataType>(dtype);
    const bool is_same = var->is_initialized && value->dtype() == type &&
                         tensorflow::DataTypeCanUseMemcpy(type) && value->dims() == (int)ndims &&
                         std::equal(dims, dims + ndims, value->shape().dim_sizes().begin());
    if (!is_same || value->NumElements() == 0 || !value->RefCountIsOne()) return absl::OkStatus();
    write(context, value->data(), value->TotalBytes());
    written = 1;
    return absl::OkStatus();
  });
  return written;
}

void sg_devices_untrack(sg_devices* devices) { devices->writes.Untrack(); }

void sg_devices_delete(sg_devices* devices) { delete devices; }

void sg_large_blocks_read(sg_large_blocks* stats) {
  const auto now = session_group::LargeBlocks::Get()->stats();
  *stats = {now.in_use_bytes, now.kept_bytes, now.limit_bytes, now.hits, now.misses};
}

void sg_large_blocks_set_limit(uint64_t bytes) {
  session_group::LargeBlocks::Get()->SetLimit(bytes);
}

void sg_large_blocks_release_unused() { session_group::LargeBlocks::Get()->ReleaseUnused(); }

sg_graph* sg_graph_parse(const void* graph_def, size_t size, TF_Status* status) {
  std::unique_ptr<sg_graph> graph;
  Guard(status, [&]() -> absl::Status {
    graph = std::make_unique<sg_graph>();
    absl::Status parsed =
        Parse(graph_def, size, "graph_def",
              "keep weights in variables, or load them from a SavedModel", &graph->def);
    if (!parsed.ok()) return parsed;
    if (graph->def.node_size() == 0) return absl::InvalidArgumentError("graph_def has no nodes");
    return Prepare(&graph->def);
  });
  return TF_GetCode(status) == TF_OK ? graph.release() : nullptr;
}

void sg_graph_hide_constants(sg_graph* graph, sg_devices* devices, TF_Status* status) {
  Guard(status, [&]() -> absl::Status {
    if (devices->devices.size() != 1 || !devices->gpus.empty()) return absl::OkStatus();
    return graph->constants.Hide(&graph->def, &devices->constants);
  });
}

int32_t sg_graph_can_reveal(const sg_graph* graph) { return graph->constants.can_reveal() ? 1 : 0; }

int32_t sg_graph_outputs(const sg_graph* graph, sg_str node) {
  int32_t outputs = session_group::NodeIndex::kUnknown;
  // Without memory for an index, TensorFlow has the last word on names.
  Caught([&]() -> absl::Status {
    outputs = graph->nodes.Outputs(graph->def, {node.data, node.size});
    return absl::OkStatus();
  }).IgnoreError();
  return outputs;
}

void sg_graph_delete(sg_graph* graph) { delete graph; }

sg_saved_model* sg_saved_model_read(sg_str export_dir, const sg_str* tags, size_t ntags,
                                    TF_Buffer* meta_graph_def, TF_Status* status) {
  std::unique_ptr<sg_saved_model> model;
  Guard(status, [&]() -> absl::Status {
    model = std::make_unique<sg_saved_model>();
    model->export_dir = String(export_dir);
    const std::vector<std::string> names = Strings(tags, ntags);
    const std::unordered_set<std::string> tag_set(names.begin(), names.end());
    absl::Status read =
        tensorflow::ReadMetaGraphDefFromSavedModel(model->export_dir, tag_set, &model->meta_graph);
    if (!read.ok()) return read;
    if (meta_graph_def != nullptr) {
      absl::Status filled = FillBuffer(model->meta_graph, meta_graph_def);
      if (!filled.ok()) return filled;
    }
    // Restoring needs all of the MetaGraphDef but its graph, and the sessions only that.
    model->graph = std::make_unique<sg_graph>();
    model->graph->def.Swap(model->meta_graph.mutable_graph_def());
    model->meta_graph.clear_graph_def();
    return Prepare(&model->graph->def);
  });
  return TF_GetCode(status) == TF_OK ? model.release() : nullptr;
}

sg_graph* sg_saved_model_take_graph(sg_saved_model* model) { return model->graph.release(); }

void sg_saved_model_delete(sg_saved_model* model) { delete model; }

sg_run_options* sg_run_options_parse(const void* data, size_t size, TF_Status* status) {
  std::unique_ptr<sg_run_options> options;
  Guard(status, [&]() -> absl::Status {
    options = std::make_unique<sg_run_options>();
    return Parse(data, size, "run_options", "check the length", &options->proto);
  });
  return TF_GetCode(status) == TF_OK ? options.release() : nullptr;
}

sg_run_options* sg_run_options_copy(const sg_run_options* options, TF_Status* status) {
  std::unique_ptr<sg_run_options> copy;
  Guard(status, [&]() -> absl::Status {
    copy = std::make_unique<sg_run_options>(*options);
    return absl::OkStatus();
  });
  return copy.release();
}

void sg_run_options_delete(sg_run_options* options) { delete options; }

int64_t sg_run_options_timeout_ms(const sg_run_options* options) {
  return options->proto.timeout_in_ms();
}

void sg_run_options_set_timeout_ms(sg_run_options* options, int64_t timeout_ms) {
  options->proto.set_timeout_in_ms(timeout_ms);
}

int32_t sg_run_options_is_plain(const sg_run_options* options) {
  // As long as one that has nothing else: then it has nothing else. Takes no memory, as copying and
  // clearing would.
  tensorflow::RunOptions plain;
  plain.set_timeout_in_ms(options->proto.timeout_in_ms());
  if (options->proto.inter_op_thread_pool() == -1) plain.set_inter_op_thread_pool(-1);
  return plain.ByteSizeLong() == options->proto.ByteSizeLong() ? 1 : 0;
}

int32_t sg_run_options_inter_op_pool(const sg_run_options* options) {
  return options->proto.inter_op_thread_pool();
}

void sg_run_options_set_inter_op_pool(sg_run_options* options, int32_t pool) {
  options->proto.set_inter_op_thread_pool(pool);
}

sg_intra_op_pool* sg_intra_op_pool_new(const TF_SessionOptions* options, int32_t threads,
                                       TF_Status* status) {
  std::unique_ptr<sg_intra_op_pool> pool;
  Guard(status, [&]() -> absl::Status {
    const bool spin = !options->options.config.experimental().disable_thread_spinning();
    pool.reset(new sg_intra_op_pool{{options->options.env, threads, spin}});
    return absl::OkStatus();
  });
  return pool.release();
}

namespace {

std::unique_ptr<sg_session> NewSession(sg_devices* devices, tensorflow::SessionOptions options,
                                       const sg_seat* seat,
                                       std::unique_ptr<sg_intra_op_pool> pool) {
  auto session = std::make_unique<sg_session>();
  session->env = std::make_unique<InheritedNames>(options.env);
  session->intra_op_pool = std::move(pool);
  session->writes = &devices->writes;
  session->constants = &devices->constants;
  session->options = std::move(options);
  session->options.env = session->env.get();
  session->options.config.set_use_per_session_threads(true);
  session_group::IntraOpPool* intra_op_pool = &session->intra_op_pool->pool;
  session->options.config.set_intra_op_parallelism_threads(intra_op_pool->workers()->num_threads);

  std::vector<std::unique_ptr<Device>> wrappers;
  for (const auto& device : devices->devices) {
    wrappers.push_back(std::make_unique<session_group::SessionDevice>(
        device.get(), device->name(), device->resource_manager(), intra_op_pool,
        &devices->constants, &devices->restorer));
  }
  if (seat != nullptr) {
    const sg_devices::Gpu& gpu = devices->gpus[seat->gpu];
    // As graphs name it, whichever GPU and stream it is.
    wrappers.push_back(std::make_unique<session_group::SessionDevice>(
        devices->virtual_gpus->device(gpu.id, seat->stream), absl::StrCat(kTask, "/device:GPU:0"),
        gpu.resources.get(), intra_op_pool, &devices->constants, &devices->restorer));
  }
  session->session = std::make_unique<tensorflow::DirectSession>(
      session->options, new tensorflow::StaticDeviceMgr(std::move(wrappers)),
      /*factory=*/nullptr);
  return session;
}

}  // namespace

sg_session* sg_session_new(sg_devices* devices, const TF_SessionOptions* options,
                           const sg_seat* seat, sg_intra_op_pool* pool, int32_t inter_op_threads,
                           TF_Status* status) {
  std::unique_ptr<sg_intra_op_pool> owned_pool(pool);
  std::unique_ptr<sg_session> session;
  Guard(status, [&]() -> absl::Status {
    tensorflow::SessionOptions own = options->options;
    own.config.set_inter_op_parallelism_threads(inter_op_threads);
    session = NewSession(devices, std::move(own), seat, std::move(owned_pool));
    return absl::OkStatus();
  });
  return session.release();
}

sg_session* sg_compiler_new(sg_devices* devices, const TF_SessionOptions* options,
                            const sg_seat* seat, sg_intra_op_pool* pool, TF_Status* status) {
  std::unique_ptr<sg_intra_op_pool> owned_pool(pool);
  std::unique_ptr<sg_session> session;
  Guard(status, [&]() -> absl::Status {
    tensorflow::SessionOptions own = options->options;
    own.config.set_inter_op_parallelism_threads(1);
    session_group::GraphCapture::Prepare(&own);
    session = NewSession(devices, std::move(own), seat, std::move(owned_pool));
    return absl::OkStatus();
  });
  return session.release();
}

void sg_session_close(sg_session* session, TF_Status* status) {
  Guard(status, [&] {
    session->closing.StartCancel();
    return session->Use([&] { return session->session->Close(); });
  });
}

int32_t sg_session_is_broken(const sg_session* session) {
  return session->is_broken.load(std::memory_order_acquire) ? 1 : 0;
}

void sg_session_delete(sg_session* session) {
  if (!session->is_broken) {
    delete session;
    return;
  }
  // It stays, and so does the way to it, so that it is no leak. Memory may still be short.
  static std::atomic<sg_session*> broken{nullptr};
  session->next_broken = broken.load();
  while (!broken.compare_exchange_weak(session->next_broken, session)) {
  }
}

void sg_session_create(sg_session* session, const sg_graph* graph, TF_Status* status) {
  SetStatus(status, session->Use([&] { return session->session->Create(graph->def); }));
}

void sg_session_extend(sg_session* session, const sg_graph* graph, TF_Status* status) {
  SetStatus(status, session->Use([&] { return session->session->Extend(graph->def); }));
}

void sg_session_add_revealed(sg_session* session, const sg_graph* graph, int32_t extend,
                             TF_Status* status) {
  SetStatus(status, session->Use([&] {
    tensorflow::GraphDef def = graph->def;
    absl::Status revealed = graph->constants.Reveal(&def);
    if (!revealed.ok()) return revealed;
    return extend != 0 ? session->session->Extend(std::move(def))
                       : session->session->Create(std::move(def));
  }));
}

void sg_session_restore(sg_session* session, const sg_saved_model* model,
                        const sg_run_options* options, TF_Status* status) {
  SetStatus(status, session->Use([&] {
    return tensorflow::RestoreSession(options->proto, model->meta_graph, model->export_dir,
                                      &session->session);
  }));
}

void sg_session_run(sg_session* session, const sg_run_options* options, const sg_str* input_names,
                    TF_Tensor* const* inputs, size_t ninputs, const sg_str* output_names,
                    TF_Tensor** outputs, size_t noutputs, const sg_str* targets, size_t ntargets,
                    TF_Buffer* run_metadata, TF_Status* status) {
  Guard(status, [&]() -> absl::Status {
    std::vector<std::pair<std::string, Tensor>> feeds(ninputs);
    for (size_t i = 0; i < ninputs; ++i) {
      feeds[i].first = String(input_names[i]);
      absl::Status converted = tensorflow::TF_TensorToTensor(inputs[i], &feeds[i].second);
      if (!converted.ok()) return converted;
    }
    std::vector<Tensor> fetched;
    tensorflow::RunMetadata metadata;
    const std::vector<std::string> fetches = Strings(output_names, noutputs);
    const std::vector<std::string> target_names = Strings(targets, ntargets);
    absl::Status ran = session->Compute([&] {
      return session->session->Run(options->proto, feeds, fetches, target_names, &fetched,
                                   &metadata);
    });
    if (!ran.ok()) return ran;

    if (run_metadata != nullptr) {
      absl::Status filled = FillBuffer(metadata, run_metadata);
      if (!filled.ok()) return filled;
    }
    return HandOver(fetched, outputs);
  });
}

sg_program* sg_program_compile(sg_session* compiler, const sg_graph* const* graphs, size_t ngraphs,
                               const sg_str* feeds, size_t nfeeds, const sg_str* fetches,
                               size_t nfetches, const sg_str* targets, size_t ntargets,
                               TF_Status* status) {
  std::unique_ptr<sg_program> program;
  Guard(status, [&]() -> absl::Status {
    tensorflow::CallableOptions callable;
    for (size_t i = 0; i < nfeeds; ++i) callable.add_feed(String(feeds[i]));
    for (size_t i = 0; i < nfetches; ++i) callable.add_fetch(String(fetches[i]));
    for (size_t i = 0; i < ntargets; ++i) callable.add_target(String(targets[i]));
    session_group::Program::GraphDefs defs;
    for (size_t i = 0; i < ngraphs; ++i) defs.push_back(&graphs[i]->def);
    program.reset(new sg_program{compiler->constants, nullptr});
    return compiler->Use([&] {
      return session_group::Program::Compile(compiler->session.get(), defs, callable,
                                             compiler->constants, &program->program);
    });
  });
  return TF_GetCode(status) == TF_OK ? program.release() : nullptr;
}

const char* sg_program_obstacle(const sg_program* program) {
  return program->program->graph() != nullptr ? nullptr : program->program->obstacle().c_str();
}

int32_t sg_program_writes(const sg_program* program) { return program->program->writes() ? 1 : 0; }

int32_t sg_program_writes_elsewhere(const sg_program* program) {
  return program->program->writes_elsewhere() ? 1 : 0;
}

int32_t sg_program_recurses(const sg_program* program) {
  return program->program->recurses() ? 1 : 0;
}

void sg_program_choices(const sg_program* program, sg_choice choice, void* context,
                        TF_Status* status) {
  Guard(status, [&]() -> absl::Status {
    for (const session_group::Program::Chosen& chosen : program->program->chosen()) {
      choice(context, {chosen.node.data(), chosen.node.size()}, chosen.rows,
             chosen.is_other ? 1 : 0);
    }
    return absl::OkStatus();
  });
}

void sg_program_delete(sg_program* program) { delete program; }

sg_callable* sg_callable_new(sg_session* session, sg_program* program, int32_t resolve_reads,
                             int32_t fuse_lookups, int32_t choose_kernels, TF_Status* status) {
  std::unique_ptr<sg_callable> callable;
  Guard(status, [&]() -> absl::Status {
    const tensorflow::DeviceMgr* device_mgr;
    absl::Status found = session->session->LocalDeviceManager(&device_mgr);
    if (!found.ok()) return found;
    return sg_callable::Make(program->program.get(),
                             {device_mgr->HostCPU(),
                              device_mgr,
                              &session->options,
                              session->writes,
                              &session->closing,
                              resolve_reads != 0,
                              {},
                              fuse_lookups != 0,
                              choose_kernels != 0},
                             &callable);
  });
  return TF_GetCode(status) == TF_OK ? callable.release() : nullptr;
}

int32_t sg_callable_may_wait(const sg_callable* callable) {
  return callable->usual().may_wait() ? 1 : 0;
}

void sg_callable_facts_get(const sg_callable* callable, sg_callable_facts* facts) {
  const session_group::Layout& layout = callable->usual().layout();
  *facts = {static_cast<int64_t>(layout.steps.size()), static_cast<int64_t>(layout.loops.size()),
            static_cast<int64_t>(callable->usual().num_variables()), layout.num_gathers,
            callable->program().constant_bytes()};
}

TF_Status* sg_callable_run(sg_callable* callable, TF_Tensor* const* inputs, size_t ninputs,
                           const sg_order* order, TF_Tensor** outputs, size_t noutputs,
                           int64_t timeout_ms, sg_run_notes* notes) {
  const absl::Status ran = Caught([&]() -> absl::Status {
    absl::InlinedVector<const Tensor*, 16> feeds(ninputs);
    for (size_t i = 0; i < ninputs; ++i) {
      feeds[i] = &tensorflow::TensorFromInterface(inputs[i]->tensor);
    }
    absl::InlinedVector<Tensor, 4> fetches(noutputs);
    std::optional<absl::Time> deadline;
    if (timeout_ms > 0) deadline = absl::Now() + absl::Milliseconds(timeout_ms);
    absl::Status computed = callable->Run(*order, feeds, deadline, absl::MakeSpan(fetches), notes);
    return computed.ok() ? HandOver(fetches, outputs) : computed;
  });
  return session_group::NewStatus(ran);
}

void sg_callable_delete(sg_callable* callable) { delete callable; }

int32_t sg_tensor_dtype(const TF_Tensor* tensor) { return TF_TensorType(tensor); }

TF_DeviceList* sg_session_list_devices(sg_session* session, TF_Status* status) {
  std::unique_ptr<TF_DeviceList> list;
  Guard(status, [&] {
    list = std::make_unique<TF_DeviceList>();
    return session->Use([&] { return session->session->ListDevices(&list->response); });
  });
  return TF_GetCode(status) == TF_OK ? list.release() : nullptr;
}
