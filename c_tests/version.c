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
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
  return 0;
}
