// A checkpoint that is open: what it says about each tensor, and the files that have their bytes.
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

// Where the bytes of a tensor are that lie in a file as they will in memory.
struct StoredBytes {
  const tensorflow::RandomAccessFile* file = nullptr;
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint32_t checksum = 0;
};

// A tensor that is to be restored.
struct Wanted {
  // As RestoreV2 has them; the slice is empty for all of the tensor.
  std::string name;
  std::string slice;
  tensorflow::DataType dtype;
};

// Reads by TensorFlow's own reader, of which only the index is used for most tensors. For one
// thread, but for the files.
class Checkpoint {
 public:
  // NULL where TensorFlow has to say what is wrong, or reads in another way.
  static std::unique_ptr<Checkpoint> Open(tensorflow::Env* env, const std::string& prefix);

  // Finds a tensor's shape and, unless only Read() knows how to read it, its bytes. False where
  // TensorFlow has to say what is wrong.
  bool Find(const Wanted& wanted, tensorflow::TensorShape* shape, StoredBytes* bytes);

  // Reads into a tensor of that shape what Find() has found no bytes for.
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
