// Programs, and their instances in sessions.
#include <memory>
#include <utility>

#include "abi/convert.h"
#include "abi/handles.h"
#include "abi/shim.h"
#include "abi/tensors.h"
#include "absl/container/inlined_vector.h"
#include "tensorflow/c/tf_tensor_internal.h"

using session_group::Caught;
using session_group::Guard;
using session_group::HandOver;
using session_group::String;
using tensorflow::Tensor;

sg_program* sg_program_compile(sg_session* compiler, const sg_graph* const* graphs, size_t ngraphs,
                               const sg_str* feeds, size_t nfeeds, const sg_str* fetches,
                               size_t nfetches, const sg_str* targets, size_t ntargets,
                               int32_t fuse_lookups, TF_Status* status) {
  std::unique_ptr<sg_program> program;
  Guard(status, [&]() -> absl::Status {
    tensorflow::CallableOptions callable;
    for (size_t i = 0; i < nfeeds; ++i) callable.add_feed(String(feeds[i]));
    for (size_t i = 0; i < nfetches; ++i) callable.add_fetch(String(fetches[i]));
    for (size_t i = 0; i < ntargets; ++i) callable.add_target(String(targets[i]));
    session_group::Program::GraphDefs defs;
    for (size_t i = 0; i < ngraphs; ++i) defs.push_back(&graphs[i]->def);
    program.reset(new sg_program{compiler->constants, nullptr});
    return compiler->Use([&] {
      return session_group::Program::Compile(compiler->session.get(), defs, callable,
                                             fuse_lookups != 0, compiler->constants,
                                             &program->program);
    });
  });
  return TF_GetCode(status) == TF_OK ? program.release() : nullptr;
}

const char* sg_program_obstacle(const sg_program* program) {
  return program->program->graph() != nullptr ? nullptr : program->program->obstacle().c_str();
}

int32_t sg_program_writes(const sg_program* program) { return program->program->writes() ? 1 : 0; }

int32_t sg_program_writes_elsewhere(const sg_program* program) {
  return program->program->writes_elsewhere() ? 1 : 0;
}

int32_t sg_program_recurses(const sg_program* program) {
  return program->program->recurses() ? 1 : 0;
}

void sg_program_choices(const sg_program* program, sg_choice choice, void* context,
                        TF_Status* status) {
  Guard(status, [&]() -> absl::Status {
    for (const session_group::Program::Chosen& chosen : program->program->chosen()) {
      choice(context, {chosen.node.data(), chosen.node.size()}, chosen.rows,
             chosen.is_other ? 1 : 0);
    }
    return absl::OkStatus();
  });
}

void sg_program_delete(sg_program* program) { delete program; }

sg_instance* sg_instance_new(sg_session* session, sg_program* program, uint32_t stripes,
                             int32_t resolve_reads, int32_t fuse_lookups, int32_t choose_kernels,
                             TF_Status* status) {
  std::unique_ptr<sg_instance> instance;
  Guard(status, [&]() -> absl::Status {
    const tensorflow::DeviceMgr* device_mgr;
    absl::Status found = session->session->LocalDeviceManager(&device_mgr);
    if (!found.ok()) return found;
    return sg_instance::Make(program->program.get(),
                             {device_mgr->HostCPU(),
                              device_mgr,
                              &session->options,
                              session->writes,
                              session->frames,
                              stripes,
                              &session->closing,
                              resolve_reads != 0,
                              {},
                              fuse_lookups != 0,
                              choose_kernels != 0},
                             &instance);
  });
  return TF_GetCode(status) == TF_OK ? instance.release() : nullptr;
}

int32_t sg_instance_may_wait(const sg_instance* instance) {
  return instance->usual().may_wait() ? 1 : 0;
}

void sg_instance_facts_get(const sg_instance* instance, sg_instance_facts* facts) {
  const session_group::Layout& layout = instance->usual().layout();
  *facts = {static_cast<int64_t>(layout.steps.size()),
            static_cast<int64_t>(layout.loops.size()),
            static_cast<int64_t>(instance->usual().num_variables()),
            static_cast<int64_t>(instance->usual().num_tables()),
            layout.num_gathers,
            instance->program().constant_bytes()};
}

TF_Status* sg_instance_run(sg_instance* instance, TF_Tensor* const* inputs, size_t ninputs,
                           const sg_run* run, TF_Tensor** outputs, size_t noutputs,
                           sg_run_notes* notes) {
  const absl::Status ran = Caught([&]() -> absl::Status {
    absl::InlinedVector<const Tensor*, 16> feeds(ninputs);
    for (size_t i = 0; i < ninputs; ++i) {
      feeds[i] = &tensorflow::TensorFromInterface(inputs[i]->tensor);
    }
    absl::InlinedVector<Tensor, 4> fetches(noutputs);
    absl::Status computed = instance->Run(*run, feeds, absl::MakeSpan(fetches), notes);
    return computed.ok() ? HandOver(fetches, outputs) : computed;
  });
  return session_group::NewStatus(ran);
}

void sg_instance_delete(sg_instance* instance) { delete instance; }
