// tensorflow::SessionGroup, as programs know it from DeepRec, on stock TensorFlow. For programs
// that use TensorFlow's C++ API. Header-only, C++17; link libsession_group.
//
//   tensorflow::SessionGroup* group = nullptr;
//   TF_RETURN_IF_ERROR(tensorflow::NewSessionGroup(session_options, &group, 4));
//   TF_RETURN_IF_ERROR(group->Create(meta_graph.graph_def()));
//   TF_RETURN_IF_ERROR(group->Run(run_options, inputs, output_names, {}, &outputs, &metadata));
//
// Code that owns a tensorflow::Session doesn't need this header: with the library loaded,
// NewSession() and LoadSavedModel() make a group if SessionOptions.target is "session_group:4"; see
// SessionGroup_RegisterTarget() in session_group.h.
//
// docs/migration.md lists the differences from DeepRec. This header may be included together with
// session_group.h, whose SessionGroup is in the global namespace.
#ifndef SESSION_GROUP_TENSORFLOW_HPP_
#define SESSION_GROUP_TENSORFLOW_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/protobuf/config.pb.h"
#include "tensorflow/core/public/session.h"
#include "tensorflow/core/public/session_options.h"

namespace session_group {
namespace internal {

// The only function of session_group.h that this header needs. Including session_group.h would put
// a second SessionGroup in reach of programs that say `using namespace tensorflow`.
extern "C" void* SessionGroup_NewCppPart(void* session, int32_t session_id, TF_Status* status);

}  // namespace internal
}  // namespace session_group

namespace tensorflow {

// How to make a group.
struct SessionGroupMetadata {
  // The number of sessions, or, if there are gpu_ids, of sessions on each GPU; 1 to 1024 in all.
  int session_count = 1;
  // Not used: groups share nothing with each other, whatever their model_id.
  int model_id = 0;
  // Gives each session a stream of its own on one of these GPUs; see
  // SessionGroupOptions_SetMultiStream() and SessionGroupOptions_SetGpuIds() in session_group.h.
  // Empty: no streams, and the devices that any session would have.
  std::vector<size_t> gpu_ids;
  // The CPUs of each session, such as "2-4;5-7". Empty: what SESSION_GROUP_CPUSET in the
  // environment says.
  std::string cpusets;
};

// N sessions that share variables and tables. Thread-safe, except that no other call may be in
// progress when it is destroyed. It owns the sessions that it hands out.
class SessionGroup {
 public:
  SessionGroup(const SessionGroup&) = delete;
  SessionGroup& operator=(const SessionGroup&) = delete;
  // Also closes the group.
  ~SessionGroup() = default;

  // Gives all sessions their graph. To initialise it, run its initialisers once, on any session.
  absl::Status Create(const GraphDef& graph) { return all_->Create(graph); }

  // Runs on session number `session_id` modulo the number of sessions, or, if that is negative, on
  // the session that the policy chooses.
  absl::Status Run(const std::vector<std::pair<std::string, Tensor>>& inputs,
                   const std::vector<std::string>& output_tensor_names,
                   const std::vector<std::string>& target_node_names, std::vector<Tensor>* outputs,
                   int32_t session_id = -1) {
    return GetSession(session_id)->Run(inputs, output_tensor_names, target_node_names, outputs);
  }
  absl::Status Run(const RunOptions& run_options,
                   const std::vector<std::pair<std::string, Tensor>>& inputs,
                   const std::vector<std::string>& output_tensor_names,
                   const std::vector<std::string>& target_node_names, std::vector<Tensor>* outputs,
                   RunMetadata* run_metadata, int32_t session_id = -1) {
    return GetSession(session_id)
        ->Run(run_options, inputs, output_tensor_names, target_node_names, outputs, run_metadata);
  }

  // Returns session number `hint_id` modulo the number of sessions. If that is negative, returns
  // the group itself as a session: each request then goes to the session that the policy chooses.
  Session* GetSession(int32_t hint_id = -1) {
    if (hint_id < 0) return all_.get();
    return sessions_[static_cast<size_t>(hint_id) % sessions_.size()].get();
  }
  // Returns NULL if there is no session with this number.
  std::unique_ptr<Session>* GetSessionPtr(int id) {
    if (id < 0 || id >= GetSessionNum()) return nullptr;
    return &sessions_[static_cast<size_t>(id)];
  }
  // Variables and tables that are restored or initialised here are shared by all sessions. With
  // GPUs, only the sessions on the same GPU share them: restore and initialise on each leader.
  Session* GetLeaderSession() { return sessions_[0].get(); }
  // One for each GPU.
  std::vector<Session*> GetLeaderSessions() {
    std::vector<Session*> leaders;
    for (size_t i = 0; i < leader_num_; ++i) leaders.push_back(sessions_[i].get());
    return leaders;
  }
  int32_t GetSessionNum() const { return static_cast<int32_t>(sessions_.size()); }

  // Refuses new requests, cancels running ones, and frees sessions, threads and variables.
  absl::Status Close() { return all_->Close(); }

 private:
  friend absl::Status NewSessionGroup(const SessionOptions&, SessionGroup**,
                                      const SessionGroupMetadata&);
  SessionGroup() = default;

  // Destroyed last, because the other sessions are parts of it.
  std::unique_ptr<Session> all_;
  std::vector<std::unique_ptr<Session>> sessions_;
  size_t leader_num_ = 1;  // the leaders are the first sessions
};

// Makes a group, which the caller deletes. On failure, returns the reason and sets
// *out_session_group to NULL. The target of the options must be empty.
inline absl::Status NewSessionGroup(const SessionOptions& options, SessionGroup** out_session_group,
                                    const SessionGroupMetadata& metadata) {
  *out_session_group = nullptr;
  if (!options.target.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("SessionOptions.target is \"", options.target,
                                                   "\": leave it empty for a session group"));
  }
  if (metadata.cpusets.find('&') != std::string::npos) {  // it would end the cpuset in the target
    return absl::InvalidArgumentError(absl::StrCat(
        "SessionGroupMetadata.cpusets is \"", metadata.cpusets, "\": '&' is no part of a cpuset"));
  }
  SessionOptions own = options;
  // DeepRec's groups take turns.
  own.target = absl::StrCat("session_group://", metadata.session_count, "?policy=round_robin");
  if (!metadata.cpusets.empty()) absl::StrAppend(&own.target, "&cpuset=", metadata.cpusets);
  if (!metadata.gpu_ids.empty()) {
    absl::StrAppend(&own.target,
                    "&multi_stream=true&gpu_ids=", absl::StrJoin(metadata.gpu_ids, ","));
  }
  std::unique_ptr<SessionGroup> group(new SessionGroup);
  Session* all = nullptr;
  absl::Status made = NewSession(own, &all);
  if (!made.ok()) return made;
  group->all_.reset(all);
  const std::unique_ptr<TF_Status, void (*)(TF_Status*)> status(TF_NewStatus(), TF_DeleteStatus);
  group->leader_num_ = std::max<size_t>(metadata.gpu_ids.size(), 1);
  const int32_t session_num = metadata.session_count * static_cast<int32_t>(group->leader_num_);
  for (int32_t i = 0; i < session_num; ++i) {
    group->sessions_.emplace_back(static_cast<Session*>(
        session_group::internal::SessionGroup_NewCppPart(all, i, status.get())));
    if (TF_GetCode(status.get()) != TF_OK) {
      return absl::Status(static_cast<absl::StatusCode>(TF_GetCode(status.get())),
                          TF_Message(status.get()));
    }
  }
  *out_session_group = group.release();
  return absl::OkStatus();
}

inline absl::Status NewSessionGroup(const SessionOptions& options, SessionGroup** out_session_group,
                                    int session_num = 1) {
  SessionGroupMetadata metadata;
  metadata.session_count = session_num;
  return NewSessionGroup(options, out_session_group, metadata);
}

}  // namespace tensorflow

#endif  // SESSION_GROUP_TENSORFLOW_HPP_
