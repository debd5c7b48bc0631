// What the tests of sessions of TensorFlow's C++ API share.
#ifndef SESSION_GROUP_C_TESTS_TEST_SESSION_H_
#define SESSION_GROUP_C_TESTS_TEST_SESSION_H_

#include <memory>
#include <string>
#include <vector>

#include "session_group_tensorflow.hpp"

// TensorFlow's, which end the program with another message.
#undef CHECK
#undef CHECK_OK
#include "test.h"

namespace tf = tensorflow;
using Tensors = std::vector<tf::Tensor>;

#define CHECK_STATUS(expression)                                                                  \
  do {                                                                                            \
    const absl::Status checked = (expression);                                                    \
    if (!checked.ok()) {                                                                          \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, std::string(checked.message()).c_str()); \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

#define CHECK_REFUSED(expression, kind, part)                                             \
  do {                                                                                    \
    const absl::Status refused = (expression);                                            \
    if (!absl::Is##kind(refused) || refused.message().find(part) == std::string::npos) {  \
      fprintf(stderr, "%s:%d: not %s with \"%s\": %s\n", __FILE__, __LINE__, #kind, part, \
              refused.ToString().c_str());                                                \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

inline std::unique_ptr<tf::Session> NewSession(const std::string& target) {
  tf::SessionOptions options;
  options.target = target;
  tf::Session* session = nullptr;
  CHECK_STATUS(tf::NewSession(options, &session));
  return std::unique_ptr<tf::Session>(session);
}

// What a session of a group has done.
inline SessionGroupStats Stats(tf::Session* session, int32_t id) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = SessionGroup_FromCppSession(session, status);
  CHECK_OK(status);
  SessionGroupStats stats;
  stats.struct_size = sizeof(stats);
  SessionGroup_GetStats(group, id, &stats, status);
  CHECK_OK(status);
  TF_DeleteStatus(status);
  return stats;
}

// How many sessions the group has.
inline int32_t SessionNum(tf::Session* session) {
  TF_Status* status = TF_NewStatus();
  const int32_t n = SessionGroup_SessionNum(SessionGroup_FromCppSession(session, status));
  CHECK_OK(status);
  TF_DeleteStatus(status);
  return n;
}

#endif  // SESSION_GROUP_C_TESTS_TEST_SESSION_H_
