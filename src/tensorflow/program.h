// What a request computes, optimised once for all sessions of a group.
#ifndef SESSION_GROUP_PROGRAM_H_
#define SESSION_GROUP_PROGRAM_H_

#include <memory>
#include <string>
#include <vector>

#include "tensorflow/core/common_runtime/device.h"
#include "tensorflow/core/graph/graph.h"
#include "tensorflow/core/protobuf/config.pb.h"
#include "tensorflow/core/public/session.h"

namespace session_group {

// Takes copies of the graphs that TensorFlow is about to make executors of for a set of feeds,
// fetches and targets: placed, with functions inlined, optimised by Grappler. A SessionDevice shows
// them to the capture of the thread that it is called by.
class GraphCapture {
 public:
  GraphCapture() { current_ = this; }
  ~GraphCapture() { current_ = nullptr; }
  GraphCapture(const GraphCapture&) = delete;
  void operator=(const GraphCapture&) = delete;

  // The calling thread's; NULL for none.
  static GraphCapture* Current() { return current_; }

  void Add(const tensorflow::Graph& graph, const tensorflow::Device* device);
  // One for each device that takes part.
  std::vector<std::unique_ptr<tensorflow::Graph>>& graphs() { return graphs_; }
  const std::vector<const tensorflow::Device*>& devices() const { return devices_; }

 private:
  static thread_local GraphCapture* current_;
  std::vector<std::unique_ptr<tensorflow::Graph>> graphs_;
  std::vector<const tensorflow::Device*> devices_;
};

// A graph with arguments (feeds) and return values (fetches), and what is known about it.
// Immutable.
class Program {
 public:
  // Lets `compiler`, a session that has the group's graph and SessionDevices, optimise it.
  static absl::Status Compile(tensorflow::Session* compiler,
                              const tensorflow::CallableOptions& callable,
                              std::unique_ptr<Program>* program);

  // NULL where the graph can't be run from first node to last by one thread, or has state in its
  // kernels, which the session's other requests have to see, too. Then only the session can run it.
  const tensorflow::Graph* graph() const { return graph_.get(); }
  // Why not.
  const std::string& obstacle() const { return obstacle_; }
  // Whether running it may change a variable, a table or the like.
  bool writes() const { return writes_; }
  // Whether that may be one that is not on the CPU.
  bool writes_elsewhere() const { return writes_elsewhere_; }
  // Whether running a part of it twice would show.
  bool has_side_effects() const { return has_side_effects_; }
  // Names for messages, in the order of the graph's arguments.
  const std::vector<std::string>& feeds() const { return feeds_; }
  int num_fetches() const { return num_fetches_; }

 private:
  Program() = default;

  std::unique_ptr<tensorflow::Graph> graph_;
  std::string obstacle_;
  bool writes_ = false;
  bool writes_elsewhere_ = false;
  bool has_side_effects_ = false;
  std::vector<std::string> feeds_;
  int num_fetches_ = 0;
};

}  // namespace session_group

#endif  // SESSION_GROUP_PROGRAM_H_
