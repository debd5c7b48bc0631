// Makes the layout of a program for a session, in five passes.
#ifndef SESSION_GROUP_MAKE_LAYOUT_H_
#define SESSION_GROUP_MAKE_LAYOUT_H_

#include "absl/status/status.h"
#include "compile/program.h"
#include "execute/layout.h"
#include "execute/resolved_reads.h"

namespace session_group {

// The passes are in known_values, lookup_fusion, step_order, step_builder (with kernel_factory and
// control_flow_layout) and liveness. They keep the values of nodes in node_values.
//
// Adds the variables that the program reads to `reads`. The program must outlive the layout.
absl::Status MakeLayout(Program* program, const Layout::Options& options, ResolvedReads* reads,
                        Layout* layout);

}  // namespace session_group

#endif  // SESSION_GROUP_MAKE_LAYOUT_H_
