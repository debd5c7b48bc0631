// Makes resource variables of TensorFlow 1's reference variables.
#ifndef SESSION_GROUP_REFERENCE_VARIABLES_H_
#define SESSION_GROUP_REFERENCE_VARIABLES_H_

#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// What is added to the names of a variable's node and of an operation on it, for the nodes that
// take their places.
inline constexpr char kHandle[] = "/session_group_handle";
inline constexpr char kWrite[] = "/session_group_write";

// Makes resource variables of a graph's reference variables (VariableV2, Variable), so that their
// reads can be resolved, and run in programs. All nodes keep their names and what is fetched from
// them: the variable's node gives its value, an assignment's the value after it. Variables with
// operations that only take references stay as they are. `earlier` are the graphs that a session
// has already, in which this was done before; fails if the graph has such an operation for one of
// theirs.
absl::Status ConvertReferenceVariables(const std::vector<const tensorflow::GraphDef*>& earlier,
                                       tensorflow::GraphDef* graph);

}  // namespace session_group

#endif  // SESSION_GROUP_REFERENCE_VARIABLES_H_
