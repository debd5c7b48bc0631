#include "compile/kernel_choice.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_def.pb.h"

namespace session_group {
namespace {

// The first run of a kernel also sets it up.
constexpr int kIgnoredSamples = 1;
constexpr int kSamples = 7;
// Results of the other kernel may differ in their last bits, so it must take less than this share
// of the time.
constexpr double kMuchFaster = 0.9;

}  // namespace

int KernelChoice::Size(const tensorflow::Tensor& input) {
  const int dims = input.dims();
  const int64_t last = dims == 0 ? 1 : input.dim_size(dims - 1);
  const int64_t rows = last == 0 ? 0 : input.NumElements() / last;
  return rows <= 1 ? 0 : std::min(kSizes - 1, 63 - __builtin_clzll(rows));
}

bool KernelChoice::BeginMeasuring(int size) {
  std::lock_guard<std::mutex> lock(mu_);
  Times& times = times_[size];
  if (times.is_measuring || decision(size) != kOpen) return false;
  times.is_measuring = true;
  return true;
}

void KernelChoice::Measured(int size, int64_t stock_ns, int64_t other_ns) {
  std::lock_guard<std::mutex> lock(mu_);
  Times& times = times_[size];
  if (++times.samples <= kIgnoredSamples) return;
  times.stock = std::min(times.stock, stock_ns);
  times.other = std::min(times.other, other_ns);
  if (times.samples < kSamples) return;
  const bool is_other = times.other < kMuchFaster * times.stock;
  decisions_[size].store(is_other ? kOther : kStock, std::memory_order_relaxed);
}

void KernelChoice::EndMeasuring(int size) {
  std::lock_guard<std::mutex> lock(mu_);
  times_[size].is_measuring = false;
}

std::optional<tensorflow::NodeDef> WithoutOneDnn(const tensorflow::Node& node,
                                                 const tensorflow::OpRegistryInterface& ops) {
  absl::string_view name = node.type_string();
  if (!absl::ConsumePrefix(&name, "_MklNative") && !absl::ConsumePrefix(&name, "_Mkl")) {
    return std::nullopt;
  }
  const tensorflow::OpDef* op = nullptr;
  // Names of fused operations begin with an underscore, other names don't.
  for (const std::string& other : {absl::StrCat("_", name), std::string(name)}) {
    if (ops.LookUpOpDef(other, &op).ok()) break;
    op = nullptr;
  }
  if (op == nullptr) return std::nullopt;
  tensorflow::NodeDef def = node.def();
  def.set_op(op->name());
  auto& attrs = *def.mutable_attr();
  attrs.clear();
  for (const auto& attr : op->attr()) {
    const auto own = node.def().attr().find(attr.name());
    if (own != node.def().attr().end()) {
      attrs[attr.name()] = own->second;
    } else if (attr.has_default_value()) {
      attrs[attr.name()] = attr.default_value();
    } else {
      return std::nullopt;
    }
  }
  return def;
}

}  // namespace session_group
