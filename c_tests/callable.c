// Callables: made once, run by many threads, deleted before or after their group; warming up.
// clang-format off: test.h says what the system's headers are to declare.
#include "test.h"

#include <pthread.h>
// clang-format on

static const char* const kX[] = {"x:0"};
static const char* const kY[] = {"y:0"};

static void* run_often(void* callable) {
  TF_Status* status = TF_NewStatus();
  for (int i = 0; i < 1000; ++i) {
    TF_Tensor* x = scalar((float)i);
    TF_Tensor* y = NULL;
    SessionGroupCallable_Run((SessionGroupCallable*)callable, &x, 1, &y, 1, status);
    CHECK_OK(status);
    CHECK(float_at(y, 0) == (float)i + 1.0f);
    TF_DeleteTensor(x);
    TF_DeleteTensor(y);
  }
  TF_DeleteStatus(status);
  return NULL;
}

static void one_callable_serves_many_threads(const SessionGroupOptions* options) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = created_group(options, "trivial.pb");
  TF_Tensor* x = scalar(1.0f);
  SessionGroup_WarmUp(group, kX, &x, 1, kY, 1, NULL, 0, status);
  CHECK_OK(status);
  for (int32_t session = 0; session < 3; ++session) {
    SessionGroupStats stats;
    stats.struct_size = sizeof(stats);
    SessionGroup_GetStats(group, session, &stats, status);
    CHECK_OK(status);
    CHECK(stats.runs == 1);
  }
  SessionGroupCallable* callable = SessionGroup_MakeCallable(group, kX, 1, kY, 1, NULL, 0, status);
  CHECK_OK(status);
  pthread_t threads[8];
  for (int i = 0; i < 8; ++i) CHECK(pthread_create(&threads[i], NULL, run_often, callable) == 0);
  for (int i = 0; i < 8; ++i) CHECK(pthread_join(threads[i], NULL) == 0);

  // What goes wrong leaves the outputs as they were.
  TF_Tensor* y = NULL;
  SessionGroupCallable_Run(callable, &x, 0, &y, 1, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT && y == NULL);
  SessionGroupCallable_Run(callable, &x, 1, &y, 0, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT && y == NULL);
  SessionGroupCallable_Run(callable, NULL, 1, &y, 1, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT && y == NULL);
  SessionGroupCallable_Run(NULL, &x, 1, &y, 1, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT && y == NULL);
  SessionGroupCallable_Delete(NULL);
  const char* const nowhere[] = {"nowhere:0"};
  CHECK(SessionGroup_MakeCallable(group, kX, 1, nowhere, 1, NULL, 0, status) == NULL);
  CHECK(TF_GetCode(status) != TF_OK && strstr(TF_Message(status), "nowhere") != NULL);

  // It outlives its group, and says that this is gone.
  SessionGroup_Delete(group);
  SessionGroupCallable_Run(callable, &x, 1, &y, 1, status);
  CHECK(TF_GetCode(status) == TF_FAILED_PRECONDITION && y == NULL);
  SessionGroupCallable_Delete(callable);
  TF_DeleteTensor(x);
  TF_DeleteStatus(status);
}

int main(void) {
  TF_Status* status = TF_NewStatus();
  const char* const executions[] = {"caller", "worker", "pool"};
  for (int i = 0; i < 3; ++i) {
    for (int optimised = 0; optimised < 2; ++optimised) {
      SessionGroupOptions* options = NewSessionGroupOptions();
      SessionGroupOptions_SetSessionNum(options, 3);
      SessionGroupOptions_SetExecution(options, executions[i], status);
      CHECK_OK(status);
      SessionGroupOptions_SetOptimization(options, "serial_executor", optimised, status);
      CHECK_OK(status);
      one_callable_serves_many_threads(options);
      SessionGroupOptions_SetOptimization(options, "magic", true, status);
      CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
      CHECK(strstr(TF_Message(status), "serial_executor") != NULL);
      SessionGroupOptions_Delete(options);
    }
  }
  TF_DeleteStatus(status);
  return 0;
}
