// The first pass of a layout: finds the values that exist before the first step.
#ifndef SESSION_GROUP_KNOWN_VALUES_H_
#define SESSION_GROUP_KNOWN_VALUES_H_

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "compile/program.h"
#include "execute/layout.h"
#include "execute/node_values.h"
#include "execute/resolved_reads.h"
#include "tensorflow/core/graph/graph.h"

namespace session_group {

// Finds feeds, constants and variables, and the gathers from them.
class KnownValues {
 public:
  using Value = Layout::Value;

  KnownValues(const Program& program, const Layout::Options& options, ResolvedReads* reads,
              Layout* layout, NodeValues* values)
      : program_(program), options_(options), reads_(reads), l_(layout), values_(values) {}

  // To be called for each node, in the program's order.
  absl::Status Find(const tensorflow::Node& node);

  // Whether nothing uses the outputs of the node, because its users read values of variables.
  bool IsNotNeeded(const tensorflow::Node& node) const { return not_needed_.count(&node) > 0; }
  // The variable that a ResourceGather reads as a value; NULL if there is none.
  const Value* ResolvedVariable(const tensorflow::Node& node) const {
    const auto found = resolved_gathers_.find(&node);
    return found == resolved_gathers_.end() ? nullptr : &found->second;
  }
  // The table, by number of the read, that a node reads without its handle; -1 if there is none.
  int ResolvedTable(const tensorflow::Node& node) const {
    const auto found = resolved_tables_.find(&node);
    return found == resolved_tables_.end() ? -1 : found->second;
  }
  // Whether a gather must read its variable under the variable's lock.
  bool IsLockedGather(const tensorflow::Node& node) const {
    return locked_gathers_.count(&node) > 0;
  }
  // The table of a gather that Lookups can do, which is known before a run; NULL for any other
  // node.
  const Value* Table(const tensorflow::Node& node) const {
    const auto found = gathers_.find(&node);
    return found == gathers_.end() ? nullptr : &found->second;
  }
  // Whether a table may have two dimensions, as far as this is known before a run.
  bool MayBeMatrix(Value table) const;

 private:
  bool Resolves() const { return options_.resolve_reads && !program_.writes(); }
  absl::Status FindVariable(const tensorflow::Node& node);
  absl::Status FindTable(const tensorflow::Node& node);
  void FindUnresolvedGather(const tensorflow::Node& node);
  bool CanLookUp(const tensorflow::Node& node) const;
  bool OnlyResolvedUses(const tensorflow::Node& node) const;

  const Program& program_;
  const Layout::Options& options_;
  ResolvedReads* const reads_;
  Layout* const l_;
  NodeValues* const values_;
  bool IsUnresolved(const std::string& key) const {
    return options_.unresolved != nullptr && options_.unresolved->count(key) > 0;
  }
  // By handle.
  std::map<std::pair<int, int>, ResolvedReads::Variable> variables_;
  std::map<std::pair<int, int>, ResolvedReads::Name> tables_;
  std::map<std::string, int> ranks_of_variables_;  // by key; -1 if not known
  std::map<int, int> ranks_of_reads_;              // by number of the read
  std::set<std::pair<int, int>> unresolved_;       // handles of variables
  std::set<const tensorflow::Node*> not_needed_;
  std::map<const tensorflow::Node*, Value> resolved_gathers_;  // with the variable
  std::map<const tensorflow::Node*, int> resolved_tables_;     // with the table
  std::set<const tensorflow::Node*> locked_gathers_;
  // The gathers that Lookups can do, with the table.
  std::map<const tensorflow::Node*, Value> gathers_;
};

// The index of an argument or a return value. An error unless it is less than `limit`.
absl::Status ArgumentIndex(const tensorflow::Node& node, size_t limit, int* index);

}  // namespace session_group

#endif  // SESSION_GROUP_KNOWN_VALUES_H_
