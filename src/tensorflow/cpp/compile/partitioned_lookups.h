// Finds lookups in partitioned embeddings.
#ifndef SESSION_GROUP_PARTITIONED_LOOKUPS_H_
#define SESSION_GROUP_PARTITIONED_LOOKUPS_H_

#include "tensorflow/core/graph/graph.h"

namespace session_group {

// Puts one node in the place of each lookup in a partitioned variable, as tf.nn.embedding_lookup
// writes it: ids become the numbers of partitions and of rows in them by arithmetic;
// DynamicPartition sorts them, each partition gathers its own rows, and DynamicStitch puts these in
// order. That is 17 kernels for four partitions, most of which handle tensors of a few numbers.
void FusePartitionedLookups(tensorflow::Graph* graph);

}  // namespace session_group

#endif  // SESSION_GROUP_PARTITIONED_LOOKUPS_H_
