// Prepares a graph for several sessions over the same devices.
#ifndef SESSION_GROUP_PREPARE_GRAPH_H_
#define SESSION_GROUP_PREPARE_GRAPH_H_

#include "absl/status/status.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// Refuses graphs that sessions can't share or that would end the process. Lets sessions share the
// tables of all others.
absl::Status PrepareGraph(tensorflow::GraphDef* graph);

}  // namespace session_group

#endif  // SESSION_GROUP_PREPARE_GRAPH_H_
