#include "abi/convert.h"

#include <cstdlib>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tensorflow/core/platform/env.h"

namespace session_group {

std::vector<std::string> Strings(const sg_str* strings, size_t n) {
  std::vector<std::string> result;
  result.reserve(n);
  for (size_t i = 0; i < n; ++i) result.emplace_back(strings[i].data, strings[i].size);
  return result;
}

// protobuf counts bytes in an int.
absl::Status Parse(const void* data, size_t size, const char* what, const char* advice,
                   tensorflow::protobuf::MessageLite* message) {
  if (size > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " has ", size, " bytes, but a protocol buffer must have less than 2 GiB: ", advice));
  }
  if (!tensorflow::ParseProtoUnlimited(message, data, size)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is not a serialised ", message->GetTypeName().substr(11), " (", size,
                     " bytes): pass its bytes and their exact number"));
  }
  return absl::OkStatus();
}

absl::Status FillBuffer(const tensorflow::protobuf::MessageLite& message, TF_Buffer* buffer) {
  const size_t size = message.ByteSizeLong();
  void* data = malloc(size > 0 ? size : 1);
  if (data == nullptr || !message.SerializeToArray(data, size)) {
    free(data);
    return absl::ResourceExhaustedError(
        absl::StrCat("can't serialise a ", message.GetTypeName(), " of ", size,
                     " bytes: it has 2 GiB or more, or there is not enough memory"));
  }
  if (buffer->data_deallocator != nullptr) {
    buffer->data_deallocator(const_cast<void*>(buffer->data), buffer->length);
  }
  buffer->data = data;
  buffer->length = size;
  buffer->data_deallocator = [](void* data, size_t) { free(data); };
  return absl::OkStatus();
}

}  // namespace session_group
