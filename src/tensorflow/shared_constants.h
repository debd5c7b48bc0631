// Large constants of a graph, kept once for all sessions.
#ifndef SESSION_GROUP_SHARED_CONSTANTS_H_
#define SESSION_GROUP_SHARED_CONSTANTS_H_

#include <string>

#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/resource_mgr.h"

namespace session_group {

// Makes variables of a graph's large constants in a container of their own, and reads of them of
// the nodes. Functions are left alone: a compiler that makes machine code of them knows no
// variables, and what consumes a function's data may want it to be stateless. A constant is in the
// GraphDef, in each session's copies of that, in those that optimising makes, and in each kernel; a
// variable is in the resource manager. On failure, the graph is of no use and the container may
// hold some of them.
absl::Status ShareConstants(tensorflow::GraphDef* graph, const std::string& container,
                            tensorflow::ResourceMgr* resources, tensorflow::Allocator* allocator);

}  // namespace session_group

#endif  // SESSION_GROUP_SHARED_CONSTANTS_H_
