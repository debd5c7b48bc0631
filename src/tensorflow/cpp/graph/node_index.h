// The nodes of a GraphDef by name.
#ifndef SESSION_GROUP_NODE_INDEX_H_
#define SESSION_GROUP_NODE_INDEX_H_

#include <cstdint>
#include <mutex>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// Built by the first call; from then on the graph must not change. Thread-safe.
class NodeIndex {
 public:
  static constexpr int32_t kUnknown = INT32_MAX;
  static constexpr int32_t kNone = -1;

  // The number of outputs of a node: kNone if there is no such node, kUnknown if only TensorFlow
  // knows, because it replaces some nodes, such as conditionals, by others whose names begin with
  // theirs.
  int32_t Outputs(const tensorflow::GraphDef& graph, absl::string_view name);

 private:
  bool IsBelowANode(absl::string_view name) const;

  std::once_flag built_;
  absl::flat_hash_map<absl::string_view, const tensorflow::NodeDef*> nodes_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_NODE_INDEX_H_
