// The types that shim.h declares, and how its functions report errors.
#ifndef SESSION_GROUP_HANDLES_H_
#define SESSION_GROUP_HANDLES_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "abi/caught.h"
#include "abi/shim.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "devices/large_blocks.h"
#include "devices/session_device.h"
#include "devices/virtual_gpus.h"
#include "execute/frame_pool.h"
#include "execute/program_instance.h"
#include "execute/writes.h"
#include "graph/constant_store.h"
#include "graph/hidden_constants.h"
#include "graph/node_index.h"
#include "restore/restore.h"
#include "tensorflow/c/c_api_internal.h"
#include "tensorflow/c/tf_status_helper.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"
#include "tensorflow/core/public/session.h"
#include "tsl/platform/denormal.h"

// The devices that sessions wrap. Their resource managers are destroyed with them.
struct sg_devices {
  // A GPU on which each session has a stream.
  struct Gpu {
    int id;
    std::unique_ptr<tensorflow::ResourceMgr> resources;
  };

  explicit sg_devices(tensorflow::Allocator* host) : host(host), constants(host, &tables.nodes) {}

  session_group::Writes writes;
  session_group::FrameBudget frames;
  session_group::Restorer restorer;
  session_group::TablePlacement tables;
  tensorflow::Allocator* const host;
  // Set if `host` is FastAllocator. Destroyed after the devices and constants, so that it returns
  // their memory to the system.
  std::optional<session_group::LargeBlocks::User> keeps_blocks;
  session_group::ConstantStore constants;
  std::vector<std::unique_ptr<tensorflow::Device>> devices;
  // Of a multi-stream group. Then `devices` is only the CPU.
  const session_group::VirtualGpus* virtual_gpus = nullptr;
  int32_t streams = 0;  // on each GPU
  std::vector<Gpu> gpus;
};

struct sg_graph {
  tensorflow::GraphDef def;
  session_group::HiddenConstants constants;  // of the graph
  mutable session_group::NodeIndex nodes;
};

struct sg_saved_model {
  std::string export_dir;
  tensorflow::MetaGraphDef meta_graph;  // without its graph, which is in `graph`
  std::unique_ptr<sg_graph> graph;
  absl::Status has_checkpoint;  // as far as restoring needs one
};

struct sg_run_options {
  tensorflow::RunOptions proto;
};

struct sg_intra_op_pool {
  session_group::IntraOpPool pool;
};

// Lets threads keep the name that they inherit. TensorFlow would rename all of them to tf_Compute,
// but it leaves a thread alone if its name does not fit into the kernel's 15 bytes.
class InheritedNames final : public tensorflow::EnvWrapper {
 public:
  using EnvWrapper::EnvWrapper;

  tensorflow::Thread* StartThread(const tensorflow::ThreadOptions& options, const std::string& name,
                                  absl::AnyInvocable<void()> fn) override {
    return target()->StartThread(options, "session_group_" + name, std::move(fn));
  }
};

// Members are destroyed from the last to the first, so the session before the threads that it
// computes on.
struct sg_session {
  // Calls a function that uses the session. An exception unwinds frames of TensorFlow that clean
  // nothing up: locks may still be held, and callbacks may point to the old stack. Such a session
  // is never used again.
  template <typename Body>
  absl::Status Use(Body body) noexcept {
    if (is_broken.load(std::memory_order_acquire)) {
      return absl::InternalError(
          "an exception, such as out of memory, has left a session of the group in an unknown "
          "state: make a new group");
    }
    bool threw = false;
    absl::Status status = session_group::Caught(std::move(body), &threw);
    if (threw) is_broken.store(true, std::memory_order_release);
    return status;
  }

  // The same for a function that runs a graph, perhaps on the calling thread. Like TensorFlow's own
  // threads, it flushes denormal numbers to zero.
  template <typename Body>
  absl::Status Compute(Body body) noexcept {
    return Use([&] {
      tsl::port::ScopedFlushDenormal flush;
      return body();
    });
  }

  std::atomic<bool> is_broken{false};
  sg_session* next_broken = nullptr;  // see sg_session_delete()
  std::unique_ptr<InheritedNames> env;
  std::unique_ptr<sg_intra_op_pool> intra_op_pool;
  tensorflow::SessionOptions options;
  session_group::Writes* writes;
  session_group::FrameBudget* frames;
  session_group::ConstantStore* constants;
  // Cancels programs. TensorFlow's session has a manager of its own.
  tensorflow::CancellationManager closing;
  std::unique_ptr<tensorflow::Session> session;
};

// The shim uses std::mutex, because absl::Mutex is in TensorFlow's library, where ThreadSanitizer
// does not see it.

namespace session_group {

// The task that all devices belong to.
inline constexpr char kTask[] = "/job:localhost/replica:0/task:0";

inline void SetStatus(TF_Status* status, const absl::Status& from) {
  tsl::Set_TF_Status_from_Status(status, from);
}

// NULL on success, to save the allocation of a TF_Status.
inline TF_Status* NewStatus(const absl::Status& from) {
  if (from.ok()) return nullptr;
  TF_Status* status = TF_NewStatus();
  SetStatus(status, from);
  return status;
}

// Runs `body` and reports its status, or the exception that it throws.
template <typename Body>
void Guard(TF_Status* status, Body body) noexcept {
  SetStatus(status, Caught(std::move(body)));
}

}  // namespace session_group

#endif  // SESSION_GROUP_HANDLES_H_
