// tensorflow::SessionGroup, as programs know it from DeepRec, on stock TensorFlow: for programs
// that use TensorFlow's C++ API. Header-only, C++17; link libsession_group.
//
//   tensorflow::SessionGroup* group = nullptr;
//   TF_RETURN_IF_ERROR(tensorflow::NewSessionGroup(session_options, &group, 4));
//   TF_RETURN_IF_ERROR(group->Create(meta_graph.graph_def()));
//   TF_RETURN_IF_ERROR(group->Run(run_options, inputs, output_names, {}, &outputs, &metadata));
//
// Code that owns a tensorflow::Session needs nothing of this header: with the library loaded,
// NewSession() and LoadSavedModel() make a group where SessionOptions.target is "session_group:4";
// see SessionGroup_RegisterTarget() in session_group.h.
//
// Differences to DeepRec are listed in docs/migration.md. May be included together with
// session_group.h, whose SessionGroup lies in the global namespace.
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

// The one function of session_group.h that is needed here. Including that would put a second
// SessionGroup in reach of programs that say `using namespace tensorflow`.
extern "C" void* SessionGroup_NewCppPart(void* session, int32_t session_id, TF_Status* status);

}  // namespace internal
}  // namespace session_group

namespace tensorflow {

// How a group shall be made.
struct SessionGroupMetadata {
  // How many sessions, 1 to 1024 in all; on each GPU where there are gpu_ids.
  int session_count = 1;
  // Not used: groups share nothing with each other, whatever their numbers.
  int model_id = 0;
  // Gives each session a stream of its own on one of these GPUs; see
  // SessionGroupOptions_SetMultiStream() and SessionGroupOptions_SetGpuIds() in session_group.h.
  // Empty: no streams, and the devices that any session would have.
  std::vector<size_t> gpu_ids;
  // The CPUs of each session, as "2-4;5-7". Empty: as the environment's SESSION_GROUP_CPUSET says.
  std::string cpusets;
};

// N sessions that share variables and tables. Thread-safe, but for destruction, which no other call
// may outlast; sessions that it gives out stay its own.
class SessionGroup {
 public:
  SessionGroup(const SessionGroup&) = delete;
  SessionGroup& operator=(const SessionGroup&) = delete;
  // Closes the group, too.
  ~SessionGroup() = default;

  // Gives all sessions their graph. To initialise it, run its initialisers once, on any session.
  absl::Status Create(const GraphDef& graph) { return all_->Create(graph); }

  // Runs on session number `session_id`, modulo their number, or, where that is negative, on the
  // one that the policy chooses.
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

  // Session number `hint_id`, modulo their number. Where it is negative, the group itself as a
  // session: each request goes to the session that the policy chooses.
  Session* GetSession(int32_t hint_id = -1) {
    if (hint_id < 0) return all_.get();
    return sessions_[static_cast<size_t>(hint_id) % sessions_.size()].get();
  }
  // NULL where there is no session of this number.
  std::unique_ptr<Session>* GetSessionPtr(int id) {
    if (id < 0 || id >= GetSessionNum()) return nullptr;
    return &sessions_[static_cast<size_t>(id)];
  }
  // What is restored or initialised here is so for all sessions, or for those on the same GPU: do
  // so on each leader.
  Session* GetLeaderSession() { return sessions_[0].get(); }
  // One for each GPU.
  std::vector<Session*> GetLeaderSessions() {
    std::vector<Session*> leaders;
    for (size_t i = 0; i < leader_num_; ++i) leaders.push_back(sessions_[i].get());
    return leaders;
  }
  int32_t GetSessionNum() const { return static_cast<int32_t>(sessions_.size()); }

  // Turns new requests away, cancels those that run, and frees sessions, threads and variables.
  absl::Status Close() { return all_->Close(); }

 private:
  friend absl::Status NewSessionGroup(const SessionOptions&, SessionGroup**,
                                      const SessionGroupMetadata&);
  SessionGroup() = default;

  // Goes last: the others are parts of it.
  std::unique_ptr<Session> all_;
  std::vector<std::unique_ptr<Session>> sessions_;
  size_t leader_num_ = 1;  // which are the first
};

// Makes a group, which the caller deletes. On failure, says why and sets it to NULL. The options'
// target must be empty.
inline absl::Status NewSessionGroup(const SessionOptions& options, SessionGroup** out_session_group,
                                    const SessionGroupMetadata& metadata) {
  *out_session_group = nullptr;
  if (!options.target.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("SessionOptions.target is \"", options.target,
                                                   "\": leave it empty for a session group"));
  }
  if (metadata.cpusets.find('&') != std::string::npos) {  // would end the cpuset in the target
    return absl::InvalidArgumentError(absl::StrCat(
        "SessionGroupMetadata.cpusets is \"", metadata.cpusets, "\": '&' is no part of a cpuset"));
  }
  SessionOptions own = options;
  own.target = absl::StrCat("session_group://", metadata.session_count);
  const char* separator = "?";
  if (!metadata.cpusets.empty()) {
    absl::StrAppend(&own.target, separator, "cpuset=", metadata.cpusets);
    separator = "&";
  }
  if (!metadata.gpu_ids.empty()) {
    absl::StrAppend(&own.target, separator,
                    "multi_stream=true&gpu_ids=", absl::StrJoin(metadata.gpu_ids, ","));
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
