// The layout of the public structs, as programs of version 0.1 were compiled with. Where one of
// these lines is not true any more, such programs break: see docs/abi.md for what to do instead.
#include <stddef.h>

#include "session_group.h"

#define FIELD(type, field, at, bytes)                                           \
  _Static_assert(offsetof(type, field) == (at), #type "." #field " was moved"); \
  _Static_assert(sizeof(((type*)0)->field) == (bytes), #type "." #field " was resized")

FIELD(SessionGroupLoad, struct_size, 0, 8);
FIELD(SessionGroupLoad, session_num, 8, 4);
FIELD(SessionGroupLoad, in_flight, 16, 8);
FIELD(SessionGroupLoad, queued, 24, 8);

FIELD(SessionGroupStats, struct_size, 0, 8);
FIELD(SessionGroupStats, runs, 8, 8);
FIELD(SessionGroupStats, answers, 16, 17 * 8);
FIELD(SessionGroupStats, rejected, 152, 8);
FIELD(SessionGroupStats, in_flight, 160, 8);
FIELD(SessionGroupStats, queued, 168, 8);
FIELD(SessionGroupStats, busy_ns, 176, 8);
FIELD(SessionGroupStats, latency_sum_ns, 184, 8);
FIELD(SessionGroupStats, latency_p50_ns, 192, 8);
FIELD(SessionGroupStats, latency_p90_ns, 200, 8);
FIELD(SessionGroupStats, latency_p99_ns, 208, 8);
FIELD(SessionGroupStats, latency_p999_ns, 216, 8);
FIELD(SessionGroupStats, latency_max_ns, 224, 8);
FIELD(SessionGroupStats, gpu, 232, 4);
FIELD(SessionGroupStats, virtual_device, 236, 4);
FIELD(SessionGroupStats, stream_group, 240, 4);
FIELD(SessionGroupStats, leader, 244, 4);
FIELD(SessionGroupStats, way_program, 248, 8);
FIELD(SessionGroupStats, way_no_program, 256, 8);
FIELD(SessionGroupStats, way_run_options, 264, 8);
FIELD(SessionGroupStats, way_may_wait, 272, 8);
FIELD(SessionGroupStats, way_no_room, 280, 8);
FIELD(SessionGroupStats, way_disabled, 288, 8);
FIELD(SessionGroupStats, way_visit, 296, 8);
FIELD(SessionGroupStats, way_not_run, 304, 8);
FIELD(SessionGroupStats, on_pool, 312, 8);
FIELD(SessionGroupStats, unresolved, 320, 8);
FIELD(SessionGroupStats, unfused, 328, 8);

FIELD(SessionGroupMemoryStats, struct_size, 0, 8);
FIELD(SessionGroupMemoryStats, in_use_bytes, 8, 8);
FIELD(SessionGroupMemoryStats, kept_bytes, 16, 8);
FIELD(SessionGroupMemoryStats, kept_limit_bytes, 24, 8);
FIELD(SessionGroupMemoryStats, hits, 32, 8);
FIELD(SessionGroupMemoryStats, misses, 40, 8);

// New fields follow here, and these sizes with them.
_Static_assert(sizeof(SessionGroupLoad) == 32, "SessionGroupLoad has fields that are not listed");
_Static_assert(sizeof(SessionGroupStats) == 336,
               "SessionGroupStats has fields that are not listed");
_Static_assert(sizeof(SessionGroupMemoryStats) == 48,
               "SessionGroupMemoryStats has fields that are not listed");

int main(void) { return 0; }
