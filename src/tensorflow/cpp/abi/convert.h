// Converts strings and protocol buffers between shim.h and TensorFlow.
#ifndef SESSION_GROUP_CONVERT_H_
#define SESSION_GROUP_CONVERT_H_

#include <string>
#include <vector>

#include "abi/shim.h"
#include "absl/status/status.h"
#include "tensorflow/core/platform/protobuf.h"

namespace session_group {

inline std::string String(sg_str s) { return std::string(s.data, s.size); }
std::vector<std::string> Strings(const sg_str* strings, size_t n);

// Errors call the message `what`. If it has too many bytes, the error ends with `advice`.
absl::Status Parse(const void* data, size_t size, const char* what, const char* advice,
                   tensorflow::protobuf::MessageLite* message);
// Replaces the contents of the buffer.
absl::Status FillBuffer(const tensorflow::protobuf::MessageLite& message, TF_Buffer* buffer);

}  // namespace session_group

#endif  // SESSION_GROUP_CONVERT_H_
