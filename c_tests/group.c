// A group's life: made, given a graph, extended, closed, deleted; who owns what.
#include "test.h"

static void the_caller_may_free_everything_at_once(void) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 2);
  SessionGroup* group = NewSessionGroupWithOptions(session_options, options, status);
  CHECK_OK(status);
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  size_t size = 0;
  char* graph_def = read_file(model("init_op.pb"), &size);
  SessionGroup_Create(group, graph_def, size, status);
  CHECK_OK(status);
  memset(graph_def, 0xff, size);
  free(graph_def);
  const char* const targets[] = {"initialize"};
  SessionGroup_Run(group, NULL, NULL, NULL, 0, NULL, NULL, 0, targets, 1, NULL, status);
  CHECK_OK(status);
  CHECK(SessionGroup_SessionNum(group) == 2);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

static void fetched_tensors_outlive_the_group(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = initialised_group(2);
  const char* const words[] = {"a", "nothing"};
  TF_Tensor* word = strings(words, 2);
  const char* const feeds[] = {"word"};
  const char* const fetches[] = {"y"};
  TF_Tensor* y = NULL;
  SessionGroup_Run(group, NULL, feeds, &word, 1, fetches, &y, 1, NULL, 0, NULL, status);
  CHECK_OK(status);
  SessionGroup_Close(group, status);
  CHECK_OK(status);
  SessionGroup_Close(group, status);
  CHECK_OK(status);
  CHECK(SessionGroup_SessionNum(group) == 2);
  SessionGroup_Delete(group);
  CHECK(float_at(y, 0) == 111.25f && float_at(y, 1) == 110.0f);
  CHECK(TF_Dim(word, 0) == 2);  // still ours
  TF_DeleteTensor(y);
  TF_DeleteTensor(word);
  TF_DeleteStatus(status);
}

static void every_session_sees_one_cpu(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = initialised_group(2);
  TF_DeviceList* devices = SessionGroup_ListDevices(group, status);
  CHECK_OK(status);
  CHECK(TF_DeviceListCount(devices) >= 1);
  const char* name = TF_DeviceListName(devices, 0, status);
  CHECK_OK(status);
  CHECK(strcmp(name, "/job:localhost/replica:0/task:0/device:CPU:0") == 0);
  SessionGroup_Delete(group);
  CHECK(strcmp(TF_DeviceListType(devices, 0, status), "CPU") == 0);
  TF_DeleteDeviceList(devices);
  TF_DeleteStatus(status);
}

static void extending_adds_to_every_session(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = initialised_group(3);
  size_t size = 0;
  char* graph_def = read_file(model("slow.pb"), &size);
  SessionGroup_Extend(group, graph_def, size, status);
  CHECK_OK(status);
  free(graph_def);
  TF_Tensor* n = TF_AllocateTensor(TF_INT32, NULL, 0, sizeof(int32_t));
  *(int32_t*)TF_TensorData(n) = 0;
  TF_Tensor* feeds[] = {n, scalar(2.0f)};
  const char* const feed_names[] = {"slow/n", "slow/x"};
  const char* const fetches[] = {"slow/y"};
  for (int32_t session = 0; session < 3; ++session) {
    TF_Tensor* y = NULL;
    SessionGroup_RunOn(group, session, NULL, feed_names, feeds, 2, fetches, &y, 1, NULL, 0, NULL,
                       status);
    CHECK_OK(status);
    CHECK(float_at(y, 0) == 2.0f);
    TF_DeleteTensor(y);
  }
  TF_DeleteTensor(feeds[0]);
  TF_DeleteTensor(feeds[1]);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

int main(void) {
  the_caller_may_free_everything_at_once();
  fetched_tensors_outlive_the_group();
  every_session_sees_one_cpu();
  extending_adds_to_every_session();
  SessionGroup_Delete(NULL);
  CHECK(SessionGroup_SessionNum(NULL) == 0);
  return 0;
}
