// Makes the kernels of a layout.
#ifndef SESSION_GROUP_KERNEL_FACTORY_H_
#define SESSION_GROUP_KERNEL_FACTORY_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "compile/program.h"
#include "execute/known_values.h"
#include "execute/layout.h"
#include "execute/node_values.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

// The layout keeps the kernels.
class KernelFactory {
 public:
  using Value = Layout::Value;

  KernelFactory(Program* program, tensorflow::FunctionLibraryRuntime* library,
                const KnownValues& known, Layout* layout, NodeValues* values)
      : program_(program), library_(library), known_(known), l_(layout), values_(values) {}

  // Makes the kernel of a node, and finds its inputs.
  absl::Status Make(const tensorflow::Node& node, tensorflow::OpKernel** kernel,
                    std::vector<Value>* inputs);
  // Makes the node's kernel of TensorFlow without oneDNN; NULL if there is none.
  tensorflow::OpKernel* MakeOther(const tensorflow::Node& node, const tensorflow::OpKernel& kernel);

 private:
  absl::Status Create(tensorflow::NodeDef def, tensorflow::OpKernel** kernel);
  absl::Status Create(const std::shared_ptr<const tensorflow::NodeProperties>& properties,
                      tensorflow::OpKernel** kernel);
  absl::Status MakeGather(const tensorflow::Node& node, tensorflow::OpKernel** kernel);
  absl::Status MakeLockedGather(const tensorflow::Node& node, tensorflow::OpKernel** kernel);
  Value NoHandle();
  Value FirstAxis();

  Program* const program_;
  tensorflow::FunctionLibraryRuntime* const library_;
  const KnownValues& known_;
  Layout* const l_;
  NodeValues* const values_;
  Value no_handle_;
  Value first_axis_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_KERNEL_FACTORY_H_
