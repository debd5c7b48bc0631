// Asks for memory before it is read.
#ifndef SESSION_GROUP_PREFETCH_H_
#define SESSION_GROUP_PREFETCH_H_

#include <cstddef>

namespace session_group {

inline void PrefetchRow(const char* row, size_t bytes) {
  constexpr size_t kCacheLine = 64;
  for (size_t line = 0; line < bytes; line += kCacheLine) __builtin_prefetch(row + line);
}

}  // namespace session_group

#endif  // SESSION_GROUP_PREFETCH_H_
