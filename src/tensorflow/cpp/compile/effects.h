// What operations do besides computing their outputs.
#ifndef SESSION_GROUP_EFFECTS_H_
#define SESSION_GROUP_EFFECTS_H_

#include <string>

#include "tensorflow/core/graph/graph.h"

namespace session_group {

struct Effects {
  // They change a variable, a table or the like.
  bool writes = false;
  // An operation with state in its kernel and the name of its node; empty if there is none. A
  // second kernel for the same node would have a second state.
  std::string state;
  // They call functions, so that their end comes by a callback.
  bool calls = false;

  void Add(const Effects& other);
};

// The effects of a graph's own nodes, and of the functions that it calls.
struct GraphEffects {
  Effects nodes;
  Effects functions;
};

// Whether it is an operation that makes a table with a name in the resource manager, if it has a
// shared_name.
bool IsNamedTable(const std::string& op);

GraphEffects EffectsOf(const tensorflow::Graph& graph);

}  // namespace session_group

#endif  // SESSION_GROUP_EFFECTS_H_
