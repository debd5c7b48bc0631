// Gathers from variables, as TensorFlow's own sessions are to run them.
#ifndef SESSION_GROUP_SPLIT_GATHERS_H_
#define SESSION_GROUP_SPLIT_GATHERS_H_

#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// Makes of each ResourceGather a ReadVariableOp and a Gather, which give the same. The kernel of
// the former copies a variable to whose bytes somebody else refers, as programs do to read it
// without locks, and puts it for good into a mode in which such references can't be taken any more:
// one request by names would double the memory of all tables, and slow down all that follow.
void SplitGathers(tensorflow::GraphDef* graph);

}  // namespace session_group

#endif  // SESSION_GROUP_SPLIT_GATHERS_H_
