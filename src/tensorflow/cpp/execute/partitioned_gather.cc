#include "execute/partitioned_gather.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compile/integer_expression.h"
#include "execute/prefetch.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace session_group {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;

// Its address identifies this copy of the library.
const char key = 0;

class PartitionedGather final : public tensorflow::OpKernel {
 public:
  explicit PartitionedGather(tensorflow::OpKernelConstruction* context) : OpKernel(context) {
    std::vector<int64_t> expression;
    OP_REQUIRES_OK(context, context->GetAttr("expression", &expression));
    OP_REQUIRES_OK(context, context->GetAttr("partition", &partition_));
    OP_REQUIRES_OK(context, context->GetAttr("row", &row_));
    expression_ = IntegerExpression::Load(expression);
  }

  void Compute(OpKernelContext* context) override { context->SetStatus(Gather(context)); }

 private:
  struct Table {
    const char* rows;
    int64_t num_rows;
  };

  absl::Status Gather(OpKernelContext* context) const {
    const Tensor& ids = context->input(0);
    const int64_t n = ids.NumElements();
    std::vector<Table> tables;
    tensorflow::TensorShape shape;
    absl::Status fit = FindTables(context, &tables, &shape);
    if (!fit.ok()) return fit;
    if (ids.dims() == 0 && shape.dims() > 0 && shape.dim_size(0) == 1) {
      // That is how the operations in the graph take a single id.
      shape.RemoveDim(0);
    } else if (ids.dims() != 1) {
      // Nor would those take it.
      return absl::InvalidArgumentError(absl::StrCat("ids of a partitioned lookup have the shape ",
                                                     ids.shape().DebugString(),
                                                     ", but they must be a vector"));
    }
    shape.InsertDim(0, n);
    Tensor* output;
    absl::Status allocated = context->allocate_output(0, shape, &output);
    if (!allocated.ok() || n == 0) return allocated;
    const size_t row_bytes = output->TotalBytes() / n;
    char* const to = static_cast<char*>(output->data());
    return ids.dtype() == tensorflow::DT_INT32
               ? Copy(ids.flat<int32_t>().data(), n, tables, row_bytes, to)
               : Copy(ids.flat<int64_t>().data(), n, tables, row_bytes, to);
  }

  // The shape is that of a row.
  static absl::Status FindTables(OpKernelContext* context, std::vector<Table>* tables,
                                 tensorflow::TensorShape* shape) {
    for (int i = 1; i < context->num_inputs(); ++i) {
      const Tensor& table = context->input(i);
      if (table.dims() < 1) {
        return absl::InvalidArgumentError("params must be at least 1 dimensional");
      }
      tensorflow::TensorShape row = table.shape();
      row.RemoveDim(0);
      if (i > 1 && row != *shape) {
        return absl::InvalidArgumentError(absl::StrCat(
            "partitions have rows of shapes ", shape->DebugString(), " and ", row.DebugString()));
      }
      *shape = row;
      tables->push_back({static_cast<const char*>(table.data()), table.dim_size(0)});
    }
    return absl::OkStatus();
  }

  template <typename Id>
  absl::Status Copy(const Id* ids, int64_t n, const std::vector<Table>& tables, size_t row_bytes,
                    char* to) const {
    IntegerExpression::Block block = expression_.MakeBlock();
    const char* rows[IntegerExpression::kBlock];
    for (int64_t begin = 0; begin < n; begin += IntegerExpression::kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(n - begin, IntegerExpression::kBlock));
      std::copy(ids + begin, ids + begin + count, IntegerExpression::Register(&block, 0));
      expression_.Evaluate(count, &block);
      const int64_t* const partition = IntegerExpression::Register(&block, partition_);
      const int64_t* const row = IntegerExpression::Register(&block, row_);
      // All rows are on their way before the first one is copied.
      for (int i = 0; i < count; ++i) {
        if (static_cast<uint64_t>(partition[i]) >= tables.size()) {
          return absl::InvalidArgumentError(absl::StrCat("partitions[", begin + i,
                                                         "] = ", partition[i], " is not in [0, ",
                                                         tables.size(), ")"));
        }
        const Table& table = tables[partition[i]];
        // Nobody looks for rows of nothing.
        if (row_bytes > 0 &&
            static_cast<uint64_t>(row[i]) >= static_cast<uint64_t>(table.num_rows)) {
          return absl::InvalidArgumentError(absl::StrCat("indices[", begin + i, "] = ", row[i],
                                                         " is not in [0, ", table.num_rows, ")"));
        }
        rows[i] = table.rows + (row_bytes > 0 ? row[i] * row_bytes : 0);
        PrefetchRow(rows[i], row_bytes);
      }
      if (row_bytes == 0) continue;
      for (int i = 0; i < count; ++i, to += row_bytes) std::memcpy(to, rows[i], row_bytes);
    }
    return absl::OkStatus();
  }

  IntegerExpression expression_;
  int partition_ = 0;
  int row_ = 0;
};

}  // namespace

const std::string& PartitionedGatherName() {
  // TensorFlow keeps operations until the process ends. Each loaded copy of this library has a
  // kernel of its own, so the name includes an address.
  static const std::string* const name = [] {
    auto* name = new std::string(absl::StrCat("SessionGroupPartitionedGather",
                                              absl::Hex(reinterpret_cast<uintptr_t>(&key))));
    tensorflow::OpRegistry::Global()->Register(
        [name](tensorflow::OpRegistrationData* data) -> absl::Status {
          return tensorflow::OpDefBuilder(*name)
              .Attr("N: int >= 1")
              .Attr("T: type")
              .Attr("Tids: {int32, int64}")
              .Attr("expression: list(int)")
              .Attr("partition: int")
              .Attr("row: int")
              .Input("ids: Tids")
              .Input("params: N * T")
              .Output("output: T")
              .SetShapeFn(tensorflow::shape_inference::UnknownShape)
              .Finalize(data);
        });
    // The constructor registers the kernel.
    tensorflow::kernel_factory::OpKernelRegistrar(
        tensorflow::KernelDefBuilder(name->c_str()).Device(tensorflow::DEVICE_CPU).Build(),
        "PartitionedGather",
        [](tensorflow::OpKernelConstruction* context) -> tensorflow::OpKernel* {
          return new PartitionedGather(context);
        });
    return name;
  }();
  return *name;
}

}  // namespace session_group
