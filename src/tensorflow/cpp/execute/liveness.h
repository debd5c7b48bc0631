// Last pass of a layout: from when on nobody needs a tensor.
#ifndef SESSION_GROUP_LIVENESS_H_
#define SESSION_GROUP_LIVENESS_H_

#include "execute/layout.h"

namespace session_group {

// Says of each step which tensors it is the last to need, and which it may write in place.
void FindLastUses(Layout* layout);

}  // namespace session_group

#endif  // SESSION_GROUP_LIVENESS_H_
