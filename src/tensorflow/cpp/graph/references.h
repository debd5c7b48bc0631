// Who takes references to TensorFlow 1's variables in a graph, and who only their values.
#ifndef SESSION_GROUP_REFERENCES_H_
#define SESSION_GROUP_REFERENCES_H_

#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// What an operation on a reference is for a resource variable, or null.
const char* OnResource(absl::string_view op);

// The container of a variable and its name in it, by which sessions share it.
using ResourceName = std::pair<std::string, std::string>;
ResourceName ResourceOf(const tensorflow::NodeDef& variable);

// A variable that a graph has, or one of an earlier graph that it uses.
struct ReferenceVariable {
  std::string name;
  tensorflow::DataType dtype = tensorflow::DT_INVALID;
  tensorflow::TensorShapeProto shape;
  // Its place in the graph; -1 in an earlier one.
  int node = -1;
  // The places of the operations that take a reference to it.
  std::vector<int> operations;
  // Why it has to stay a reference variable; empty if it need not.
  std::string obstacle;
};

class References {
 public:
  // `earlier` are the graphs that a session has already.
  References(const std::vector<const tensorflow::GraphDef*>& earlier,
             const tensorflow::GraphDef& graph);

  // By their nodes' names, in an order that is the same each time.
  const std::map<std::string, ReferenceVariable>& variables() const { return variables_; }

 private:
  // An input of a node, by the node's place; -1 of an earlier graph.
  struct Consumer {
    const tensorflow::NodeDef* node;
    int place;
    int input;   // -1 for a control input
    int output;  // that it takes
  };

  void FindVariables();
  void FindConsumers(const tensorflow::GraphDef& graph, bool is_earlier);
  const std::vector<Consumer>& ConsumersOf(const std::string& node) const;
  void FindUses(ReferenceVariable* variable);
  void KeepWhatSharesMemory();
  // What runs after writes, whatever they write.
  void FindWhatFollowsWrites();
  static bool TakesReference(const Consumer& consumer);
  // Why a use needs a reference; empty if it does not.
  std::string ObstacleOf(const ReferenceVariable& variable, const Consumer& consumer) const;

  const std::vector<const tensorflow::GraphDef*>& earlier_;
  const tensorflow::GraphDef& graph_;
  std::unordered_set<std::string> names_;
  // By the name of the node whose output they take.
  std::unordered_map<std::string, std::vector<Consumer>> consumers_;
  std::unordered_set<const tensorflow::NodeDef*> follows_writes_;
  std::map<std::string, ReferenceVariable> variables_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_REFERENCES_H_
