// What running operations does besides computing their outputs.
#ifndef SESSION_GROUP_EFFECTS_H_
#define SESSION_GROUP_EFFECTS_H_

#include <string>

#include "tensorflow/core/graph/graph.h"

namespace session_group {

struct Effects {
  // Changes a variable, a table or the like.
  bool writes = false;
  // The operation with state in its kernel, if there is one: a second kernel for the same node
  // would have a state of its own. With the node's name.
  std::string state;
  // Calls a function, or waits: its end comes by a callback.
  bool calls = false;

  void Add(const Effects& other);
};

// Of the nodes of a graph, and of the functions that it calls.
struct GraphEffects {
  Effects nodes;
  Effects functions;
};

GraphEffects EffectsOf(const tensorflow::Graph& graph);

}  // namespace session_group

#endif  // SESSION_GROUP_EFFECTS_H_
