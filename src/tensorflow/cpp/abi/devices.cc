// The devices of a group and the resources in them.
#include <algorithm>
#include <memory>
#include <string>

#include "abi/convert.h"
#include "abi/handles.h"
#include "abi/shim.h"
#include "devices/host_allocator.h"
#include "devices/large_blocks.h"
#include "tensorflow/core/common_runtime/device_factory.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

using session_group::Guard;
using session_group::String;
using tensorflow::Tensor;

sg_devices* sg_devices_new(const TF_SessionOptions* options, int32_t fast_memory,
                           const int32_t* gpu_ids, size_t ngpu_ids, int32_t streams,
                           TF_Status* status) {
  std::unique_ptr<sg_devices> devices;
  Guard(status, [&]() -> absl::Status {
    tensorflow::Allocator* host = session_group::HostAllocator::Get();
    if (fast_memory) host = session_group::FastAllocator::Get();
    devices = std::make_unique<sg_devices>(host);
    if (fast_memory) devices->keeps_blocks.emplace();
    // The first device of a process makes the intra-op pool of all stock sessions. A group must not
    // set its size, because the sessions of a group have pools of their own.
    tensorflow::SessionOptions own = options->options;
    own.config.set_intra_op_parallelism_threads(0);
    if (ngpu_ids == 0) {
      return tensorflow::DeviceFactory::AddDevices(own, session_group::kTask, &devices->devices);
    }
    absl::Status made =
        session_group::VirtualGpus::Get(options->options, streams, &devices->virtual_gpus);
    if (!made.ok()) return made;
    for (size_t i = 0; i < ngpu_ids; ++i) {
      devices->gpus.push_back({gpu_ids[i], std::make_unique<tensorflow::ResourceMgr>()});
    }
    devices->streams = streams;
    (*own.config.mutable_device_count())["CPU"] = 1;
    return tensorflow::DeviceFactory::AddCpuDevices(own, session_group::kTask, &devices->devices);
  });
  return TF_GetCode(status) == TF_OK ? devices.release() : nullptr;
}

int32_t sg_devices_virtual_device(const sg_devices* devices, const sg_stream_slot* stream_slot) {
  return devices->virtual_gpus->Number(devices->gpus[stream_slot->gpu].id, stream_slot->stream);
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

void sg_devices_spread_over(sg_devices* devices, const uint32_t* nodes, size_t n,
                            TF_Status* status) {
  Guard(status, [&] {
    devices->tables.nodes.Set(absl::MakeSpan(nodes, n));
    return absl::OkStatus();
  });
}

void sg_devices_set_loading(sg_devices* devices, int32_t is_loading) {
  devices->tables.is_loading.store(is_loading != 0);
}

int32_t sg_devices_spread_error(const sg_devices* devices) { return devices->tables.nodes.error(); }

size_t sg_devices_restored_bytes(const sg_devices* devices, uint64_t* bytes, size_t threads) {
  return devices->restorer.BytesByThread(absl::MakeSpan(bytes, threads));
}

int32_t sg_devices_write_variable(sg_devices* devices, sg_str container, sg_str name, int32_t dtype,
                                  const int64_t* dims, size_t ndims, sg_write write, void* context,
                                  TF_Status* status) {
  int32_t written = 0;
  Guard(status, [&]() -> absl::Status {
    if (devices->devices.size() != 1 || !devices->gpus.empty()) return absl::OkStatus();
    // Sessions drop the values that they keep, which refer to the memory.
    devices->writes.Add();
    tensorflow::ResourceMgr* resources = devices->devices[0]->resource_manager();
    const std::string in = container.size == 0 ? resources->default_container() : String(container);
    tensorflow::Var* found = nullptr;
    if (!resources->Lookup(in, String(name), &found).ok()) return absl::OkStatus();
    tensorflow::core::RefCountPtr<tensorflow::Var> var(found);
    // Code that reads the variable holds this lock or a reference to its memory.
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
  *stats = {now.in_use_bytes, now.kept_bytes, now.limit_bytes, now.hits, now.misses, now.moved};
}

void sg_large_blocks_set_limit(uint64_t bytes) {
  session_group::LargeBlocks::Get()->SetLimit(bytes);
}

void sg_large_blocks_release_unused() { session_group::LargeBlocks::Get()->ReleaseUnused(); }
