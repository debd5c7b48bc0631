// Running: by names, on a given session, with TF_SessionRun's parameters, with metadata.
#include "test.h"

static const char* const kWords[] = {"a", "b"};

static void targets_and_fetches_by_name(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = initialised_group(3);
  TF_Tensor* word = strings(kWords, 2);
  TF_Tensor* delta = scalar(1.0f);
  const char* const word_name[] = {"word:0"};
  const char* const delta_name[] = {"delta"};
  const char* const increase[] = {"increase"};
  const char* const fetches[] = {"y:0", "y"};  // the same tensor twice
  for (int32_t session = -1; session < 7; ++session) {
    SessionGroup_RunOn(group, session, NULL, delta_name, &delta, 1, NULL, NULL, 0, increase, 1,
                       NULL, status);
    CHECK_OK(status);
    TF_Tensor* y[2] = {NULL, NULL};
    SessionGroup_RunOn(group, session, NULL, word_name, &word, 1, fetches, y, 2, NULL, 0, NULL,
                       status);
    CHECK_OK(status);
    // Both variables have grown by 1 in each round.
    CHECK(float_at(y[0], 0) == 111.25f + 2.0f * (float)(session + 2));
    CHECK(y[0] != y[1] && float_at(y[1], 1) == float_at(y[0], 1));
    TF_DeleteTensor(y[0]);
    TF_DeleteTensor(y[1]);
  }
  TF_DeleteTensor(word);
  TF_DeleteTensor(delta);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

static void with_the_parameters_of_tf_session_run(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = initialised_group(2);
  size_t size = 0;
  char* graph_def = read_file(model("init_op.pb"), &size);
  TF_Buffer* buffer = TF_NewBufferFromString(graph_def, size);
  TF_Graph* graph = TF_NewGraph();
  TF_ImportGraphDefOptions* import = TF_NewImportGraphDefOptions();
  TF_GraphImportGraphDef(graph, buffer, import, status);
  CHECK_OK(status);
  const TF_Output delta = {TF_GraphOperationByName(graph, "delta"), 0};
  const TF_Output word = {TF_GraphOperationByName(graph, "word"), 0};
  const TF_Output y = {TF_GraphOperationByName(graph, "y"), 0};
  const TF_Operation* const increase = TF_GraphOperationByName(graph, "increase");

  TF_Tensor* delta_value = scalar(3.0f);
  SessionGroup_SessionRun(group, NULL, &delta, &delta_value, 1, NULL, NULL, 0, &increase, 1, NULL,
                          status);
  CHECK_OK(status);
  TF_Tensor* word_value = strings(kWords, 2);
  TF_Tensor* y_value = NULL;
  SessionGroup_SessionRun(group, NULL, &word, &word_value, 1, &y, &y_value, 1, NULL, 0, NULL,
                          status);
  CHECK_OK(status);
  CHECK(float_at(y_value, 0) == 117.25f);

  const TF_Output out_of_range = {y.oper, 1};
  TF_Tensor* untouched = NULL;
  SessionGroup_SessionRun(group, NULL, &word, &word_value, 1, &out_of_range, &untouched, 1, NULL, 0,
                          NULL, status);
  CHECK(TF_GetCode(status) == TF_OUT_OF_RANGE);
  CHECK(strstr(TF_Message(status), "output 1 of operation \"y\", which has 1") != NULL);
  CHECK(untouched == NULL);

  TF_DeleteTensor(y_value);
  TF_DeleteTensor(word_value);
  TF_DeleteTensor(delta_value);
  TF_DeleteImportGraphDefOptions(import);
  TF_DeleteGraph(graph);
  TF_DeleteBuffer(buffer);
  free(graph_def);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

static void metadata_is_filled(void) {
  TF_Status* status = TF_NewStatus();
  SessionGroup* group = initialised_group(2);
  const char full_trace[] = {0x08, 3};  // RunOptions.trace_level = FULL_TRACE
  TF_Buffer* run_options = TF_NewBufferFromString(full_trace, sizeof(full_trace));
  TF_Buffer* metadata = TF_NewBuffer();
  TF_Tensor* word = strings(kWords, 2);
  TF_Tensor* y = NULL;
  const char* const feeds[] = {"word"};
  const char* const fetches[] = {"y"};
  SessionGroup_Run(group, run_options, feeds, &word, 1, fetches, &y, 1, NULL, 0, metadata, status);
  CHECK_OK(status);
  CHECK(metadata->length > 0 && metadata->data != NULL);
  TF_DeleteTensor(y);
  y = NULL;

  // It is full now, and so refused.
  SessionGroup_Run(group, run_options, feeds, &word, 1, fetches, &y, 1, NULL, 0, metadata, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  CHECK(y == NULL);

  TF_DeleteBuffer(run_options);
  TF_DeleteBuffer(metadata);
  TF_DeleteTensor(word);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

int main(void) {
  targets_and_fetches_by_name();
  with_the_parameters_of_tf_session_run();
  metadata_is_filled();
  return 0;
}
