// SessionOptions and RunOptions.
#include <algorithm>
#include <memory>

#include "abi/convert.h"
#include "abi/handles.h"
#include "abi/shim.h"
#include "devices/virtual_gpus.h"

using session_group::Caught;
using session_group::Guard;
using session_group::Parse;

TF_SessionOptions* sg_session_options_copy(const TF_SessionOptions* options, TF_Status* status) {
  std::unique_ptr<TF_SessionOptions> copy;
  Guard(status, [&] {
    copy = std::make_unique<TF_SessionOptions>(*options);
    return absl::OkStatus();
  });
  return copy.release();
}

void sg_session_options_config(const TF_SessionOptions* options, sg_config* config) {
  const tensorflow::ConfigProto& proto = options->options.config;
  config->intra_op_threads = proto.intra_op_parallelism_threads();
  config->inter_op_threads = proto.inter_op_parallelism_threads();
  config->operation_timeout_ms = proto.operation_timeout_in_ms();
  config->has_target = options->options.target.empty() ? 0 : 1;
  config->fills_metadata =
      proto.graph_options().build_cost_model() > 0 || proto.experimental().has_session_metadata();
  const auto& pools = proto.session_inter_op_thread_pool();
  // With pools of its own, a session treats a negative number like 0.
  if (proto.use_per_session_threads() || !pools.empty()) {
    config->inter_op_threads = std::max(config->inter_op_threads, 0);
  }
  config->pools = pools.size();
  config->pools_of_default_size = 0;
  config->pool_threads = 0;
  config->has_negative_pool = 0;
  for (const auto& pool : pools) {
    config->pools_of_default_size += pool.num_threads() == 0;
    config->pool_threads += std::max(pool.num_threads(), 0);
    config->has_negative_pool |= pool.num_threads() < 0;
  }
  config->has_named_pool = std::any_of(
      pools.begin(), pools.end(), [](const auto& pool) { return !pool.global_name().empty(); });
}

int32_t sg_count_gpus(const TF_SessionOptions* options, TF_Status* status) {
  int count = 0;
  Guard(status, [&] { return session_group::VirtualGpus::Count(options->options, &count); });
  return count;
}

sg_run_options* sg_run_options_parse(const void* data, size_t size, TF_Status* status) {
  std::unique_ptr<sg_run_options> options;
  Guard(status, [&]() -> absl::Status {
    options = std::make_unique<sg_run_options>();
    return Parse(data, size, "run_options", "check the length", &options->proto);
  });
  return TF_GetCode(status) == TF_OK ? options.release() : nullptr;
}

sg_run_options* sg_run_options_copy(const sg_run_options* options, TF_Status* status) {
  std::unique_ptr<sg_run_options> copy;
  Guard(status, [&]() -> absl::Status {
    copy = std::make_unique<sg_run_options>(*options);
    return absl::OkStatus();
  });
  return copy.release();
}

void sg_run_options_delete(sg_run_options* options) { delete options; }

int64_t sg_run_options_timeout_ms(const sg_run_options* options) {
  return options->proto.timeout_in_ms();
}

void sg_run_options_set_timeout_ms(sg_run_options* options, int64_t timeout_ms) {
  options->proto.set_timeout_in_ms(timeout_ms);
}

int32_t sg_run_options_is_plain(const sg_run_options* options) {
  // If options with only these fields have the same size, there are no other fields. Unlike a copy,
  // this needs no memory.
  tensorflow::RunOptions plain;
  plain.set_timeout_in_ms(options->proto.timeout_in_ms());
  if (options->proto.inter_op_thread_pool() == -1) plain.set_inter_op_thread_pool(-1);
  return plain.ByteSizeLong() == options->proto.ByteSizeLong() ? 1 : 0;
}

int32_t sg_run_options_inter_op_pool(const sg_run_options* options) {
  return options->proto.inter_op_thread_pool();
}

void sg_run_options_set_inter_op_pool(sg_run_options* options, int32_t pool) {
  options->proto.set_inter_op_thread_pool(pool);
}
