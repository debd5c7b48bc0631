// Options: names, the context of a policy function, the environment.
#include "test.h"

typedef struct {
  int chosen;
  int calls;
  int released;
} Context;

static int32_t choose(void* context, const SessionGroupLoad* load) {
  Context* c = (Context*)context;
  c->calls++;
  CHECK(load->struct_size >= sizeof(SessionGroupLoad));
  for (int32_t i = 0; i < load->session_num; ++i) {
    CHECK(load->in_flight[i] == 0);
    CHECK(load->queued[i] == 0);
  }
  return c->chosen;
}

static void release(void* context) { ((Context*)context)->released++; }

static TF_Code initialise(SessionGroup* group, TF_Status* status) {
  const char* const targets[] = {"initialize"};
  SessionGroup_Run(group, NULL, NULL, NULL, 0, NULL, NULL, 0, targets, 1, NULL, status);
  return TF_GetCode(status);
}

static void a_policy_function_is_asked_and_its_context_released_once(void) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  Context context = {1, 0, 0};
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 2);
  SessionGroupOptions_SetPolicyFn(options, choose, &context, release);
  SessionGroup* group = NewSessionGroupWithOptions(session_options, options, status);
  CHECK_OK(status);
  SessionGroupOptions_Delete(options);
  CHECK(context.released == 0);  // the group needs it

  size_t size = 0;
  char* graph_def = read_file(model("init_op.pb"), &size);
  SessionGroup_Create(group, graph_def, size, status);
  CHECK_OK(status);
  free(graph_def);
  CHECK(initialise(group, status) == TF_OK);
  CHECK(context.calls == 1);
  const int nonsense[] = {2, -1, 1 << 30};
  for (int i = 0; i < 3; ++i) {
    context.chosen = nonsense[i];
    CHECK(initialise(group, status) == TF_INVALID_ARGUMENT);
    CHECK(strstr(TF_Message(status), "must return 0 to 1") != NULL);
  }
  context.chosen = 0;
  CHECK(initialise(group, status) == TF_OK);
  SessionGroup_Delete(group);
  CHECK(context.released == 1);

  options = NewSessionGroupOptions();
  SessionGroupOptions_SetPolicyFn(options, choose, &context, release);
  SessionGroupOptions_SetPolicyFn(options, NULL, NULL, NULL);
  CHECK(context.released == 2);
  SessionGroupOptions_SetPolicyFn(NULL, choose, &context, release);
  CHECK(context.released == 3);
  SessionGroupOptions_Delete(options);
  CHECK(context.released == 3);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
}

static void names_are_checked_when_they_are_set(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroupOptions* options = NewSessionGroupOptions();
  const char* const policies[] = {"auto", "round_robin", "thread", "least_loaded", "cpu_local"};
  for (int i = 0; i < 4; ++i) {
    SessionGroupOptions_SetPolicy(options, policies[i], status);
    CHECK_OK(status);
  }
  const char* const executions[] = {"auto", "caller", "worker", "pool"};
  for (int i = 0; i < 4; ++i) {
    SessionGroupOptions_SetExecution(options, executions[i], status);
    CHECK_OK(status);
  }
  const char* const kernels[] = {"auto", "stock"};
  for (int i = 0; i < 2; ++i) {
    SessionGroupOptions_SetKernels(options, kernels[i], status);
    CHECK_OK(status);
  }
  SessionGroupOptions_Delete(options);
  TF_DeleteStatus(status);
}

static void the_environment_is_read_and_the_program_wins(void) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  setenv("SESSION_GROUP_CPUSET", "0;nonsense", 1);
  CHECK(NewSessionGroup(session_options, 2, status) == NULL);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  CHECK(strstr(TF_Message(status), "SESSION_GROUP_CPUSET") != NULL);

  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetCpuset(options, "0;0", status);
  CHECK_OK(status);
  SessionGroup* group = NewSessionGroupWithOptions(session_options, options, status);
  CHECK_OK(status);
  CHECK(SessionGroup_SessionNum(group) == 2);
  SessionGroup_Delete(group);
  SessionGroupOptions_Delete(options);
  unsetenv("SESSION_GROUP_CPUSET");
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
}

int main(void) {
  a_policy_function_is_asked_and_its_context_released_once();
  names_are_checked_when_they_are_set();
  the_environment_is_read_and_the_program_wins();
  SessionGroupOptions_Delete(NULL);
  return 0;
}
