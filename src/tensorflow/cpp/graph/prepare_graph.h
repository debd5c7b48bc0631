// Making a graph fit for several sessions over the same devices.
#ifndef SESSION_GROUP_PREPARE_GRAPH_H_
#define SESSION_GROUP_PREPARE_GRAPH_H_

#include "absl/status/status.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// Refuses what sessions can't share, or what would end the process, and shares what they can.
absl::Status PrepareGraph(tensorflow::GraphDef* graph);

}  // namespace session_group

#endif  // SESSION_GROUP_PREPARE_GRAPH_H_
