// Makes, runs, closes and deletes sessions.
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "abi/convert.h"
#include "abi/handles.h"
#include "abi/shim.h"
#include "abi/tensors.h"
#include "absl/strings/str_cat.h"
#include "compile/graph_capture.h"
#include "devices/session_device.h"
#include "tensorflow/c/tf_tensor_internal.h"
#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/common_runtime/device_mgr.h"
#include "tensorflow/core/common_runtime/direct_session.h"

using session_group::FillBuffer;
using session_group::Guard;
using session_group::HandOver;
using session_group::SetStatus;
using session_group::String;
using session_group::Strings;
using tensorflow::Tensor;

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

void sg_intra_op_pool_delete(sg_intra_op_pool* pool) { delete pool; }

namespace {

std::unique_ptr<sg_session> NewSession(sg_devices* devices, tensorflow::SessionOptions options,
                                       const sg_stream_slot* stream_slot,
                                       std::unique_ptr<sg_intra_op_pool> pool) {
  auto session = std::make_unique<sg_session>();
  session->env = std::make_unique<InheritedNames>(options.env);
  session->intra_op_pool = std::move(pool);
  session->writes = &devices->writes;
  session->frames = &devices->frames;
  session->constants = &devices->constants;
  session->options = std::move(options);
  session->options.env = session->env.get();
  session->options.config.set_use_per_session_threads(true);
  session_group::IntraOpPool* intra_op_pool = &session->intra_op_pool->pool;
  session->options.config.set_intra_op_parallelism_threads(intra_op_pool->workers()->num_threads);

  std::vector<std::unique_ptr<tensorflow::Device>> wrappers;
  for (const auto& device : devices->devices) {
    wrappers.push_back(std::make_unique<session_group::SessionDevice>(
        device.get(), device->name(), device->resource_manager(), intra_op_pool,
        &devices->constants, &devices->restorer, &devices->tables));
  }
  if (stream_slot != nullptr) {
    const sg_devices::Gpu& gpu = devices->gpus[stream_slot->gpu];
    // Graphs name the device GPU:0, whatever its GPU and its stream.
    wrappers.push_back(std::make_unique<session_group::SessionDevice>(
        devices->virtual_gpus->device(gpu.id, stream_slot->stream),
        absl::StrCat(session_group::kTask, "/device:GPU:0"), gpu.resources.get(), intra_op_pool,
        &devices->constants, &devices->restorer, &devices->tables));
  }
  session->session = std::make_unique<tensorflow::DirectSession>(
      session->options, new tensorflow::StaticDeviceMgr(std::move(wrappers)),
      /*factory=*/nullptr);
  return session;
}

}  // namespace

sg_session* sg_session_new(sg_devices* devices, const TF_SessionOptions* options,
                           const sg_stream_slot* stream_slot, sg_intra_op_pool* pool,
                           int32_t inter_op_threads, TF_Status* status) {
  std::unique_ptr<sg_intra_op_pool> owned_pool(pool);
  std::unique_ptr<sg_session> session;
  Guard(status, [&]() -> absl::Status {
    tensorflow::SessionOptions own = options->options;
    own.config.set_inter_op_parallelism_threads(inter_op_threads);
    session = NewSession(devices, std::move(own), stream_slot, std::move(owned_pool));
    return absl::OkStatus();
  });
  return session.release();
}

sg_session* sg_compiler_new(sg_devices* devices, const TF_SessionOptions* options,
                            const sg_stream_slot* stream_slot, sg_intra_op_pool* pool,
                            TF_Status* status) {
  std::unique_ptr<sg_intra_op_pool> owned_pool(pool);
  std::unique_ptr<sg_session> session;
  Guard(status, [&]() -> absl::Status {
    tensorflow::SessionOptions own = options->options;
    own.config.set_inter_op_parallelism_threads(1);
    session_group::GraphCapture::Prepare(&own);
    session = NewSession(devices, std::move(own), stream_slot, std::move(owned_pool));
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
  // The session is never freed. The list keeps it reachable, so that leak checkers don't report it,
  // and needs no memory, which may be short.
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
  SetStatus(status, session->Use([&]() -> absl::Status {
    if (!model->has_checkpoint.ok()) return model->has_checkpoint;
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

TF_DeviceList* sg_session_list_devices(sg_session* session, TF_Status* status) {
  std::unique_ptr<TF_DeviceList> list;
  Guard(status, [&] {
    list = std::make_unique<TF_DeviceList>();
    return session->Use([&] { return session->session->ListDevices(&list->response); });
  });
  return TF_GetCode(status) == TF_OK ? list.release() : nullptr;
}
