// A group as a tensorflow::Session, for code that owns or is given one.
#ifndef SESSION_GROUP_GROUP_SESSION_H_
#define SESSION_GROUP_GROUP_SESSION_H_

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "abi/shim.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "session/callable_table.h"
#include "tensorflow/core/public/session.h"

namespace session_group {

// A whole group or one of its sessions. TensorFlow's base class refuses everything that this class
// does not override, with UNIMPLEMENTED.
class GroupSession final : public tensorflow::Session {
 public:
  using Feeds = std::vector<std::pair<std::string, tensorflow::Tensor>>;
  using Names = std::vector<std::string>;
  using Tensors = std::vector<tensorflow::Tensor>;
  using ThreadPools = tensorflow::thread::ThreadPoolOptions;

  // A session number below 0 stands for the whole group. If it owns the group, its destructor
  // deletes the group.
  GroupSession(const sg_group_functions* rust, sg_group* group, int32_t number, bool owns_group);
  ~GroupSession() override;

  sg_group* group() const { return group_; }
  // Identifies the copy of this library that made the session.
  const sg_group_functions* rust() const { return rust_; }

  absl::Status Create(const tensorflow::GraphDef& graph) override;
  absl::Status Create(tensorflow::GraphDef&& graph) override;
  absl::Status Create(const tensorflow::RunOptions&, const tensorflow::GraphDef& graph) override;
  absl::Status Create(const tensorflow::RunOptions&, tensorflow::GraphDef&& graph) override;
  absl::Status Extend(const tensorflow::GraphDef& graph) override;
  absl::Status Extend(tensorflow::GraphDef&& graph) override;
  absl::Status Extend(const tensorflow::RunOptions&, const tensorflow::GraphDef& graph) override;
  absl::Status Extend(const tensorflow::RunOptions&, tensorflow::GraphDef&& graph) override;

  absl::Status Run(const Feeds& inputs, const Names& outputs, const Names& targets,
                   Tensors* fetched) override;
  absl::Status Run(const tensorflow::RunOptions& options, const Feeds& inputs, const Names& outputs,
                   const Names& targets, Tensors* fetched,
                   tensorflow::RunMetadata* metadata) override;
  // If `pools` has pools, TensorFlow's session runs the request on them.
  absl::Status Run(const tensorflow::RunOptions& options, const Feeds& inputs, const Names& outputs,
                   const Names& targets, Tensors* fetched, tensorflow::RunMetadata* metadata,
                   const ThreadPools& pools) override;

  // A partial run stays on the session that it was set up on. Its handle begins with the session's
  // number.
  absl::Status PRunSetup(const Names& inputs, const Names& outputs, const Names& targets,
                         std::string* handle) override;
  absl::Status PRun(const std::string& handle, const Feeds& inputs, const Names& outputs,
                    Tensors* fetched) override;

  absl::Status MakeCallable(const tensorflow::CallableOptions& options,
                            CallableHandle* handle) override;
  absl::Status RunCallable(CallableHandle handle, const Tensors& inputs, Tensors* fetched,
                           tensorflow::RunMetadata* metadata) override;
  absl::Status RunCallable(CallableHandle handle, const Tensors& inputs, Tensors* fetched,
                           tensorflow::RunMetadata* metadata, const ThreadPools& pools) override;
  absl::Status ReleaseCallable(CallableHandle handle) override;

  absl::Status ListDevices(std::vector<tensorflow::DeviceAttributes>* devices) override;
  // The devices of this session, or of the first session of the group.
  absl::Status LocalDeviceManager(const tensorflow::DeviceMgr** devices) override;
  // Closes the whole group, or only this object if it is one session of a group.
  absl::Status Close() override;
  absl::Status Close(const tensorflow::RunOptions&) override { return Close(); }

 private:
  using SessionBody = absl::FunctionRef<absl::Status(sg_session* session, int32_t number)>;

  absl::Status AddGraph(tensorflow::GraphDef graph, bool extend);
  // Calls `body` with a session and its number. `request` says whether this is a request.
  absl::Status OnSession(bool request, int32_t number, SessionBody body);
  // Makes a callable on each session that can run it, because its state in the sessions is not
  // known to the group.
  absl::Status MakeOnSessions(const tensorflow::CallableOptions& options, Callable* callable);
  absl::Status CheckOpen() const;

  const sg_group_functions* const rust_;
  sg_group* const group_;
  const int32_t number_;
  const bool owns_group_;
  std::atomic<bool> closed_{false};
  CallableTable callables_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_GROUP_SESSION_H_
