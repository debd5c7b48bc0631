// What a request computes, optimised once for all sessions of a group.
#ifndef SESSION_GROUP_PROGRAM_H_
#define SESSION_GROUP_PROGRAM_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "compile/control_flow.h"
#include "compile/kernel_choice.h"
#include "graph/constant_store.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/graph/graph.h"
#include "tensorflow/core/protobuf/config.pb.h"
#include "tensorflow/core/public/session.h"

namespace session_group {

// A graph with arguments (feeds) and return values (fetches), and what is known about it.
// Thread-safe.
class Program {
 public:
  using GraphDefs = std::vector<const tensorflow::GraphDef*>;

  // Lets `compiler`, a session that has these graphs and that GraphCapture has prepared, optimise
  // them. Constants go to `constants`.
  static absl::Status Compile(tensorflow::Session* compiler, const GraphDefs& graphs,
                              const tensorflow::CallableOptions& callable, ConstantStore* constants,
                              std::unique_ptr<Program>* program);

  // NULL where one thread can't run the graph in an order that is fixed beforehand, or where it has
  // state in its kernels, which the session's other requests have to see, too. Then only the
  // session can run it.
  const tensorflow::Graph* graph() const { return graph_.get(); }
  // Why not.
  const std::string& obstacle() const { return obstacle_; }
  const ControlFlow& control_flow() const { return control_flow_; }
  // The value of a node that is a constant; NULL for any other.
  const tensorflow::Tensor* constant(const tensorflow::Node& node) const {
    const auto constant = constants_.find(node.id());
    return constant == constants_.end() ? nullptr : &constant->second;
  }
  int64_t constant_bytes() const { return constant_bytes_; }
  // Whether running it may change a variable, a table or the like.
  bool writes() const { return writes_; }
  // Whether that may be one that is not on the CPU.
  bool writes_elsewhere() const { return writes_elsewhere_; }
  // Whether TensorFlow's executor, on the calling thread alone, would go one stack frame deeper
  // with each turn of a loop.
  bool recurses() const { return recurses_; }
  // Names for messages, and types, in the order of the graph's arguments. A type that is not known
  // is DT_INVALID.
  const std::vector<std::string>& feeds() const { return feeds_; }
  const std::vector<tensorflow::DataType>& feed_types() const { return feed_types_; }
  int num_fetches() const { return num_fetches_; }

  using MakeKernel = absl::FunctionRef<absl::Status(std::shared_ptr<tensorflow::OpKernel>* kernel)>;
  // A kernel that all sessions use, since it keeps memory; the first one makes it. It is added to
  // `kernels`, which keep it.
  absl::Status GetKernel(const tensorflow::Node& node, MakeKernel make,
                         std::vector<std::shared_ptr<tensorflow::OpKernel>>* kernels,
                         tensorflow::OpKernel** kernel);
  // Between two kernels for a node.
  KernelChoice* choice(const tensorflow::Node& node);
  // Of the choices that were made: the node's name, the smallest number of rows, and whether it is
  // the kernel that a session of the same process would not use.
  struct Chosen {
    std::string node;
    int64_t rows;
    bool is_other;
  };
  std::vector<Chosen> chosen() const;

 private:
  Program() = default;
  absl::Status TakeConstants(ConstantStore* constants);
  void FindFeedTypes(const GraphDefs& graphs);

  std::unique_ptr<tensorflow::Graph> graph_;
  std::string obstacle_;
  ControlFlow control_flow_;
  std::map<int, tensorflow::Tensor> constants_;  // by a node's id
  int64_t constant_bytes_ = 0;
  bool writes_ = false;
  bool writes_elsewhere_ = false;
  bool recurses_ = false;
  mutable std::mutex mu_;  // guards both maps, by a node's id
  std::map<int, std::shared_ptr<tensorflow::OpKernel>> kernels_;
  std::map<int, std::unique_ptr<KernelChoice>> choices_;
  std::vector<std::string> feeds_;
  std::vector<tensorflow::DataType> feed_types_;
  int num_fetches_ = 0;
};

}  // namespace session_group

#endif  // SESSION_GROUP_PROGRAM_H_
