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

  // Lets `compiler` optimise these graphs. It is a session that has them, with options prepared by
  // GraphCapture. Constants go to `constants`.
  static absl::Status Compile(tensorflow::Session* compiler, const GraphDefs& graphs,
                              const tensorflow::CallableOptions& callable, bool fuse_lookups,
                              ConstantStore* constants, std::unique_ptr<Program>* program);

  // NULL if one thread can't run the graph in a fixed order, or if its kernels have state, because
  // all requests to the session must share that state. Then only the session can run it.
  const tensorflow::Graph* graph() const { return graph_.get(); }
  // Why graph() is NULL.
  const std::string& obstacle() const { return obstacle_; }
  const ControlFlow& control_flow() const { return control_flow_; }
  // The value of a constant node; NULL for any other node.
  const tensorflow::Tensor* constant(const tensorflow::Node& node) const {
    const auto constant = constants_.find(node.id());
    return constant == constants_.end() ? nullptr : &constant->second;
  }
  int64_t constant_bytes() const { return constant_bytes_; }
  // Whether a run may change a variable, a table or the like.
  bool writes() const { return writes_; }
  // Whether a run may change one that is not on the CPU.
  bool writes_elsewhere() const { return writes_elsewhere_; }
  // Whether TensorFlow's executor, if it uses only the calling thread, would recurse deeper with
  // each iteration of a loop.
  bool recurses() const { return recurses_; }
  // The feeds' names, for messages, and their types, in the order of the graph's arguments. A type
  // that is not known is DT_INVALID.
  const std::vector<std::string>& feeds() const { return feeds_; }
  const std::vector<tensorflow::DataType>& feed_types() const { return feed_types_; }
  int num_fetches() const { return num_fetches_; }

  using MakeKernel = absl::FunctionRef<absl::Status(std::shared_ptr<tensorflow::OpKernel>* kernel)>;
  // A kernel that all sessions use, because it keeps memory. The first session makes it. Adds a
  // reference to `kernels`, which keeps it alive.
  absl::Status GetKernel(const tensorflow::Node& node, MakeKernel make,
                         std::vector<std::shared_ptr<tensorflow::OpKernel>>* kernels,
                         tensorflow::OpKernel** kernel);
  // The choice between two kernels of a node.
  KernelChoice* choice(const tensorflow::Node& node);
  // A choice that was made: the name of the node, the smallest number of rows, and whether it is
  // the kernel that a stock session of the same process would not use.
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
  std::map<int, tensorflow::Tensor> constants_;  // by node id
  int64_t constant_bytes_ = 0;
  bool writes_ = false;
  bool writes_elsewhere_ = false;
  bool recurses_ = false;
  mutable std::mutex mu_;  // guards both maps, which are by node id
  std::map<int, std::shared_ptr<tensorflow::OpKernel>> kernels_;
  std::map<int, std::unique_ptr<KernelChoice>> choices_;
  std::vector<std::string> feeds_;
  std::vector<tensorflow::DataType> feed_types_;
  int num_fetches_ = 0;
};

}  // namespace session_group

#endif  // SESSION_GROUP_PROGRAM_H_
