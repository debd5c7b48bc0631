// The operation that gathers rows of a partitioned embedding.
#ifndef SESSION_GROUP_PARTITIONED_GATHER_H_
#define SESSION_GROUP_PARTITIONED_GATHER_H_

#include <string>

namespace session_group {

// The operation's name, which this copy of the library has registered. Its inputs are ids, of shape
// [n], and the partitions, each of shape [rows, ...]; its output has shape [n, ...]. Attributes:
// "expression", an IntegerExpression of an id; "partition" and "row", the registers that say where
// its row is.
const std::string& PartitionedGatherName();

}  // namespace session_group

#endif  // SESSION_GROUP_PARTITIONED_GATHER_H_
