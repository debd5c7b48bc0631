// Makes resource variables of TensorFlow 1's reference variables.
#ifndef SESSION_GROUP_REFERENCE_VARIABLES_H_
#define SESSION_GROUP_REFERENCE_VARIABLES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// What is added to the name of a variable's node for that of the handle, and to the name of an
// assignment for those of the nodes that write and that make the value.
inline constexpr char kHandle[] = "/session_group_handle";
inline constexpr char kWrite[] = "/session_group_write";
inline constexpr char kValue[] = "/session_group_value";
inline constexpr char kCopy[] = "/session_group_copy";

// Makes resource variables of a graph's reference variables (VariableV2, Variable), so that their
// reads can be resolved, and run in programs. All nodes keep their names and what is fetched from
// them: the variable's node gives its value, an assignment's the value after it. Only those become
// resource variables that nothing but assignments writes, as initialisers and savers have them, and
// that no request reads after it has written one. `earlier` are the graphs that a session has
// already, in which this was done before; fails if the graph uses one of theirs in another way.
absl::Status ConvertReferenceVariables(const std::vector<const tensorflow::GraphDef*>& earlier,
                                       tensorflow::GraphDef* graph);

// The name under which a reference variable is shared, from that of the resource variable in its
// place. In TensorFlow, two variables of one name but of different kinds are two variables.
std::string OldName(const std::string& shared_name);

}  // namespace session_group

#endif  // SESSION_GROUP_REFERENCE_VARIABLES_H_
