// Prepares gathers from variables for TensorFlow's own sessions.
#ifndef SESSION_GROUP_SPLIT_GATHERS_H_
#define SESSION_GROUP_SPLIT_GATHERS_H_

#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// Replaces each ResourceGather by a ReadVariableOp and a Gather, which compute the same. Programs
// hold references to the bytes of variables, to read them without locks. The kernel of
// ResourceGather copies a variable whose bytes are referenced, and puts it for good into a mode in
// which programs can't take references any more. One request by names would double the memory of
// all tables and slow down all later requests.
void SplitGathers(tensorflow::GraphDef* graph);

}  // namespace session_group

#endif  // SESSION_GROUP_SPLIT_GATHERS_H_
