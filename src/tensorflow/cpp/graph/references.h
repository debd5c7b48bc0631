// Who takes references to TensorFlow 1's variables in a graph, and who only their values.
#ifndef SESSION_GROUP_REFERENCES_H_
#define SESSION_GROUP_REFERENCES_H_

#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "tensorflow/core/framework/graph.pb.h"

namespace session_group {

// What an operation on a reference is for a resource variable, or null.
const char* OnResource(absl::string_view op);

// Whether an operation that there is for resource variables, too, writes the variable.
bool WritesReference(absl::string_view op);

// Whether an Assign refuses another shape than the variable has.
bool ValidatesShape(const tensorflow::NodeDef& assign);

// The container of a variable and its name in it, by which sessions share it.
using ResourceName = std::pair<std::string, std::string>;
ResourceName ResourceOf(const tensorflow::NodeDef& variable);

// A variable, and what uses it. Nodes are places in the graph.
struct ReferenceVariable {
  // An input that takes a value or a reference.
  struct Use {
    int node;
    int input;
    // The node whose output it takes: the variable itself, or an operation on it, which hands its
    // reference on.
    std::string source;
    // The output that gives the resource in place of the reference.
    std::string handle;
    // Whether the source is a RefSwitch, which gives no value that could be read.
    bool is_switched;
  };

  std::string name;
  tensorflow::DataType dtype = tensorflow::DT_INVALID;
  // As it was declared; unknown if an assignment may change it.
  tensorflow::TensorShapeProto shape;
  // -1 in an earlier graph.
  int node = -1;
  std::vector<Use> reads;
  // In an order in which each comes after its source.
  std::vector<Use> operations;
  // Why it has to stay a reference variable; empty if it need not.
  std::string obstacle;
};

class References {
 public:
  // `earlier` are the graphs that a session has already.
  References(const std::vector<const tensorflow::GraphDef*>& earlier,
             const tensorflow::GraphDef& graph);

  // Those of earlier graphs included that the graph uses, by their nodes' names.
  const std::map<std::string, ReferenceVariable>& variables() const { return variables_; }

  // Whether a read may come after a write of the same request, other than its source.
  bool MayFollowWrite(const ReferenceVariable& variable, const ReferenceVariable::Use& read) const;

 private:
  struct Earlier;
  struct Consumer {
    int node;
    int input;
  };

  void FindVariables(const Earlier& earlier);
  void FindUses(const Earlier& earlier);
  // Finds what takes the output of a node: the variable, or an operation that hands it on.
  void Follow(const std::string& node, ReferenceVariable* variable);
  void KeepWhatSharesMemory(const Earlier& earlier);
  std::vector<int> Writes(const ReferenceVariable& variable, absl::string_view except) const;
  std::vector<bool> After(std::vector<int> nodes) const;

  const tensorflow::GraphDef& graph_;
  std::unordered_map<std::string, int> places_;
  // By the name of a node, which may be one of an earlier graph.
  std::unordered_map<std::string, std::vector<Consumer>> consumers_;
  // In an order that is the same each time.
  std::map<std::string, ReferenceVariable> variables_;
  std::vector<bool> after_any_write_;
};

}  // namespace session_group

#endif  // SESSION_GROUP_REFERENCES_H_
