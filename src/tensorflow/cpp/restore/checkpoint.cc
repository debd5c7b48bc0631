#include "restore/checkpoint.h"

#include "absl/memory/memory.h"
#include "absl/strings/string_view.h"
#include "tensorflow/core/framework/tensor_slice.h"
#include "tensorflow/core/framework/types.h"
#include "tensorflow/core/util/saved_tensor_slice_util.h"
#include "tensorflow/core/util/tensor_bundle/naming.h"

using tensorflow::BundleEntryProto;
using tensorflow::TensorShape;
using tensorflow::TensorSlice;

namespace session_group {

std::unique_ptr<Checkpoint> Checkpoint::Open(tensorflow::Env* env, const std::string& prefix) {
  // TensorFlow takes the prefix for a pattern, and a checkpoint that no file matches for one of the
  // first format.
  if (prefix.find_first_of("*?[\\") != std::string::npos) return nullptr;
  auto checkpoint = absl::WrapUnique(new Checkpoint(env, prefix));
  tensorflow::BundleReader& reader = checkpoint->reader_;
  if (!reader.status().ok()) return nullptr;
  reader.Seek("");
  tensorflow::BundleHeaderProto header;
  if (!reader.Valid() || !reader.key().empty() ||
      !header.ParseFromArray(reader.value().data(), reader.value().size()) ||
      header.endianness() != tensorflow::BundleHeaderProto::LITTLE) {
    return nullptr;
  }
  checkpoint->num_shards_ = header.num_shards();
  return checkpoint;
}

bool Checkpoint::Find(const Wanted& wanted, TensorShape* shape, StoredBytes* bytes) {
  BundleEntryProto entry;
  if (!Entry(wanted.name, &entry) || entry.dtype() != wanted.dtype) return false;
  if (wanted.dtype != tensorflow::DT_STRING && !tensorflow::DataTypeCanUseMemcpy(wanted.dtype)) {
    return false;
  }
  *shape = TensorShape(entry.shape());
  if (!wanted.slice.empty()) {
    TensorShape whole, part;
    TensorSlice slice;
    if (!tensorflow::checkpoint::ParseShapeAndSlice(wanted.slice, &whole, &slice, &part).ok() ||
        !whole.IsSameSize(*shape)) {
      return false;
    }
    if (entry.slices().empty()) {
      // The tensor is stored whole, so the bytes of a slice may not be contiguous.
      if (!part.IsSameSize(*shape)) {
        *shape = part;
        return true;
      }
    } else {
      *shape = part;
      // The tensor is stored in other slices than this one.
      const std::string key = tensorflow::checkpoint::EncodeTensorNameSlice(wanted.name, slice);
      if (!Entry(key, &entry)) return true;
      if (entry.dtype() != wanted.dtype || !TensorShape(entry.shape()).IsSameSize(part)) {
        return false;
      }
    }
  }
  // Read() must assemble a whole tensor that is stored in slices, and decode strings.
  if (!entry.slices().empty() || wanted.dtype == tensorflow::DT_STRING) return true;
  return Bytes(entry, *shape, bytes);
}

bool Checkpoint::Read(const Wanted& wanted, tensorflow::Tensor* tensor) {
  if (wanted.slice.empty()) return reader_.Lookup(wanted.name, tensor).ok();
  TensorShape whole, part;
  TensorSlice slice;
  return tensorflow::checkpoint::ParseShapeAndSlice(wanted.slice, &whole, &slice, &part).ok() &&
         reader_.LookupSlice(wanted.name, slice, tensor).ok();
}

bool Checkpoint::Entry(const std::string& key, BundleEntryProto* entry) {
  reader_.Seek(key);
  return reader_.Valid() && reader_.key() == key &&
         entry->ParseFromArray(reader_.value().data(), reader_.value().size()) &&
         TensorShape::IsValid(entry->shape());
}

bool Checkpoint::Bytes(const BundleEntryProto& entry, const TensorShape& shape,
                       StoredBytes* bytes) {
  int64_t size;
  if (entry.offset() < 0 ||
      __builtin_mul_overflow(shape.num_elements(), tensorflow::DataTypeSize(entry.dtype()),
                             &size) ||
      entry.size() != size) {
    return false;
  }
  const Shard* shard = Open(entry.shard_id());
  // Checked before the tensor is allocated.
  const uint64_t offset = entry.offset();
  if (shard == nullptr || offset > shard->size ||
      static_cast<uint64_t>(size) > shard->size - offset) {
    return false;
  }
  *bytes = {shard->file.get(), entry.shard_id(), offset, static_cast<uint64_t>(size),
            entry.crc32c()};
  return true;
}

const Checkpoint::Shard* Checkpoint::Open(int32_t number) {
  const auto known = shards_.find(number);
  if (known != shards_.end()) return &known->second;
  const std::string name = tensorflow::DataFilename(prefix_, number, num_shards_);
  Shard shard;
  if (!env_->GetFileSize(name, &shard.size).ok() ||
      !env_->NewRandomAccessFile(name, &shard.file).ok()) {
    return nullptr;
  }
  return &shards_.emplace(number, std::move(shard)).first->second;
}

}  // namespace session_group
