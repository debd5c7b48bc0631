// Captures the graphs that TensorFlow makes of a set of feeds, fetches and targets.
#ifndef SESSION_GROUP_GRAPH_CAPTURE_H_
#define SESSION_GROUP_GRAPH_CAPTURE_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/common_runtime/device.h"
#include "tensorflow/core/graph/graph.h"
#include "tensorflow/core/public/session_options.h"

namespace session_group {

// Copies the graphs that a session of the calling thread would make executors for: placed, lowered,
// inlined, optimised and folded, as a stock session runs them. A session's last step is to give
// each graph to the executor factory that its options name, so the capture is such a factory.
class GraphCapture {
 public:
  // Makes sessions with these options give their graphs to the capture instead of running them.
  static void Prepare(tensorflow::SessionOptions* options);

  GraphCapture() { current_ = this; }
  ~GraphCapture() { current_ = nullptr; }
  GraphCapture(const GraphCapture&) = delete;
  void operator=(const GraphCapture&) = delete;

  // The capture of the calling thread; NULL if there is none.
  static GraphCapture* Current() { return current_; }

  void Add(const tensorflow::Graph& graph, const tensorflow::Device* device);
  // One graph for each device that takes part.
  std::vector<std::unique_ptr<tensorflow::Graph>>& graphs() { return graphs_; }
  const std::vector<const tensorflow::Device*>& devices() const { return devices_; }

 private:
  static thread_local GraphCapture* current_;
  std::vector<std::unique_ptr<tensorflow::Graph>> graphs_;
  std::vector<const tensorflow::Device*> devices_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_GRAPH_CAPTURE_H_
