// The graphs that TensorFlow ends up with for a set of feeds, fetches and targets.
#ifndef SESSION_GROUP_GRAPH_CAPTURE_H_
#define SESSION_GROUP_GRAPH_CAPTURE_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/common_runtime/device.h"
#include "tensorflow/core/graph/graph.h"
#include "tensorflow/core/public/session_options.h"

namespace session_group {

// Takes copies of the graphs of which a session of the calling thread would make executors: placed,
// lowered, inlined, optimised and folded, as a stock session runs them. The last thing that a
// session does with a graph is to give it to the executor factory that its options name, so the
// capture is such a factory.
class GraphCapture {
 public:
  // Makes sessions with these options show their graphs, instead of running them.
  static void Prepare(tensorflow::SessionOptions* options);

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

}  // namespace session_group

#endif  // SESSION_GROUP_GRAPH_CAPTURE_H_
