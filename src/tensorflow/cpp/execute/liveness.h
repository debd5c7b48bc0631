// The last pass of a layout: finds the last use of each tensor.
#ifndef SESSION_GROUP_LIVENESS_H_
#define SESSION_GROUP_LIVENESS_H_

#include "execute/layout.h"

namespace session_group {

// Sets the tensors that each step is the last to need, and those that it may write to in place.
void FindLastUses(Layout* layout);

}  // namespace session_group

#endif  // SESSION_GROUP_LIVENESS_H_
