// A TensorFlow of another minor version is a status, not a crash. This program's own TF_Version
// stands before the library's, as the dynamic linker resolves it.
#include "test.h"

const char* TF_Version(void) { return "2.20.7"; }

int main(void) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  CHECK(NewSessionGroup(session_options, 2, status) == NULL);
  CHECK(TF_GetCode(status) == TF_FAILED_PRECONDITION);
  CHECK(strstr(TF_Message(status), "TensorFlow 2.20.7 is loaded") != NULL);

  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 2);
  const char* const tags[] = {"serve"};
  CHECK(LoadSessionGroupFromSavedModel(session_options, NULL, model("strings"), tags, 1, options,
                                       NULL, status) == NULL);
  CHECK(TF_GetCode(status) == TF_FAILED_PRECONDITION);
  // The session target, which TensorFlow's C++ classes implement, is not there either.
  SessionGroup_RegisterTarget(status);
  CHECK(TF_GetCode(status) == TF_FAILED_PRECONDITION);
  TF_SetTarget(session_options, "session_group:2");
  TF_Graph* graph = TF_NewGraph();
  CHECK(TF_NewSession(graph, session_options, status) == NULL);
  CHECK(TF_GetCode(status) == TF_NOT_FOUND);
  TF_DeleteGraph(graph);

  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
  return 0;
}
