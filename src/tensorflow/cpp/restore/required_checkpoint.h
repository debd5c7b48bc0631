// Whether a SavedModel can be restored without its checkpoint.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace session_group {

// NOT_FOUND if restoring this model would read tensors from a checkpoint that is not there.
// TensorFlow's loader takes such a model, whose folder may only be half copied, for one without
// variables, and its requests fail later.
absl::Status CheckRequiredCheckpoint(const tensorflow::MetaGraphDef& meta_graph,
                                     const std::string& export_dir);

}  // namespace session_group
