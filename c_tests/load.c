// A SavedModel, and what its MetaGraphDef buffer gets.
#include "test.h"

int main(void) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 3);
  // Answers are compared with those of a session of this process.
  SessionGroupOptions_SetKernels(options, "stock", status);
  CHECK_OK(status);
  const char* const tags[] = {"serve"};

  TF_Buffer* ours = TF_NewBuffer();
  SessionGroup* group = LoadSessionGroupFromSavedModel(session_options, NULL, model("wide_deep"),
                                                       tags, 1, options, ours, status);
  CHECK_OK(status);
  CHECK(SessionGroup_SessionNum(group) == 3);

  TF_Buffer* theirs = TF_NewBuffer();
  TF_Graph* graph = TF_NewGraph();
  TF_Session* session = TF_LoadSessionFromSavedModel(session_options, NULL, model("wide_deep"),
                                                     tags, 1, graph, theirs, status);
  CHECK_OK(status);
  // Maps have no order in a serialised message, so only the sizes can be compared.
  CHECK(ours->length == theirs->length);

  // The graph that comes in the buffer names what to feed and fetch with SessionGroup_SessionRun.
  const int64_t ids_dims[] = {1, 26}, dense_dims[] = {1, 13};
  const char* const country[] = {"de"};
  TF_Tensor* inputs[] = {TF_AllocateTensor(TF_INT64, ids_dims, 2, 26 * sizeof(int64_t)),
                         TF_AllocateTensor(TF_FLOAT, dense_dims, 2, 13 * sizeof(float)),
                         strings(country, 1)};
  memset(TF_TensorData(inputs[0]), 0, 26 * sizeof(int64_t));
  memset(TF_TensorData(inputs[1]), 0, 13 * sizeof(float));
  const TF_Output feeds[] = {{TF_GraphOperationByName(graph, "serving_default_ids"), 0},
                             {TF_GraphOperationByName(graph, "serving_default_dense"), 0},
                             {TF_GraphOperationByName(graph, "serving_default_country"), 0}};
  const TF_Output fetch = {TF_GraphOperationByName(graph, "StatefulPartitionedCall"), 0};
  TF_Tensor* expected = NULL;
  TF_SessionRun(session, NULL, feeds, inputs, 3, &fetch, &expected, 1, NULL, 0, NULL, status);
  CHECK_OK(status);
  for (int i = 0; i < 6; ++i) {
    TF_Tensor* score = NULL;
    SessionGroup_SessionRun(group, NULL, feeds, inputs, 3, &fetch, &score, 1, NULL, 0, NULL,
                            status);
    CHECK_OK(status);
    CHECK(float_at(score, 0) == float_at(expected, 0));
    TF_DeleteTensor(score);
  }

  TF_DeleteTensor(expected);
  for (int i = 0; i < 3; ++i) TF_DeleteTensor(inputs[i]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteBuffer(ours);
  TF_DeleteBuffer(theirs);
  SessionGroup_Delete(group);
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
  return 0;
}
