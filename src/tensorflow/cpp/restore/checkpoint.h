// An open checkpoint: its index, and the files that have the bytes of the tensors.
#ifndef SESSION_GROUP_CHECKPOINT_H_
#define SESSION_GROUP_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor_shape.h"
#include "tensorflow/core/framework/types.pb.h"
#include "tensorflow/core/platform/file_system.h"
#include "tensorflow/core/protobuf/tensor_bundle.pb.h"
#include "tensorflow/core/util/tensor_bundle/tensor_bundle.h"

namespace session_group {

// The position of a tensor whose bytes in the file are the same as in memory.
struct StoredBytes {
  const tensorflow::RandomAccessFile* file = nullptr;
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint32_t checksum = 0;
};

// A tensor that is to be restored.
struct Wanted {
  // As in the inputs of RestoreV2. An empty slice is the whole tensor.
  std::string name;
  std::string slice;
  tensorflow::DataType dtype;
};

// Uses TensorFlow's own reader, for most tensors only for the index. Not thread-safe, except for
// the files.
class Checkpoint {
 public:
  // NULL if TensorFlow's kernel must report an error or can read the checkpoint in another way.
  static std::unique_ptr<Checkpoint> Open(tensorflow::Env* env, const std::string& prefix);

  // Finds the shape of a tensor and, unless only Read() can read it, the position of its bytes.
  // False if TensorFlow's kernel must report an error.
  bool Find(const Wanted& wanted, tensorflow::TensorShape* shape, StoredBytes* bytes);

  // Reads a tensor without StoredBytes into `tensor`, which has the shape from Find().
  bool Read(const Wanted& wanted, tensorflow::Tensor* tensor);

 private:
  struct Shard {
    std::unique_ptr<tensorflow::RandomAccessFile> file;
    uint64_t size = 0;
  };

  Checkpoint(tensorflow::Env* env, const std::string& prefix)
      : env_(env), prefix_(prefix), reader_(env, prefix) {}

  bool Entry(const std::string& key, tensorflow::BundleEntryProto* entry);
  bool Bytes(const tensorflow::BundleEntryProto& entry, const tensorflow::TensorShape& shape,
             StoredBytes* bytes);
  const Shard* Open(int32_t shard);

  tensorflow::Env* const env_;
  const std::string prefix_;
  tensorflow::BundleReader reader_;
  int32_t num_shards_ = 0;
  std::unordered_map<int32_t, Shard> shards_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_CHECKPOINT_H_
