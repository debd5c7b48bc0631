// The constants of a group, each stored once.
#ifndef SESSION_GROUP_CONSTANT_STORE_H_
#define SESSION_GROUP_CONSTANT_STORE_H_

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "absl/status/status.h"
#include "devices/table_nodes.h"
#include "tensorflow/core/framework/allocator.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace session_group {

// Keeps one copy of all constants with the same type, shape and bytes, whichever session, signature
// or function they come from. Thread-safe.
class ConstantStore {
 public:
  // Both must outlive the store; the tensors need not.
  ConstantStore(tensorflow::Allocator* allocator, const TableNodes* nodes)
      : allocator_(allocator), nodes_(nodes) {}

  tensorflow::Allocator* allocator() const { return allocator_; }
  // Over which memory for large constants is to be spread.
  const TableNodes* nodes() const { return nodes_; }
  // An equal tensor that is already stored, or `tensor` itself, which is then stored.
  tensorflow::Tensor Share(const tensorflow::Tensor& tensor);
  absl::Status FromProto(const tensorflow::TensorProto& proto, tensorflow::Tensor* tensor);
  // Drops the constants that only the store refers to.
  void Sweep();
  // The size of all stored constants.
  int64_t bytes() const;

 private:
  tensorflow::Allocator* const allocator_;
  const TableNodes* const nodes_;
  mutable std::mutex mu_;
  std::unordered_multimap<uint64_t, tensorflow::Tensor> tensors_;  // by a hash of their bytes
};

}  // namespace session_group

#endif  // SESSION_GROUP_CONSTANT_STORE_H_
