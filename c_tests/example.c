#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session_group.h"

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

// Usage: example SAVED_MODEL_DIR, for a model that splits text into words.
int main(int argc, char** argv) {
  if (argc != 2) return 2;
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 4);

  const char* const tags[] = {"serve"};
  SessionGroup* group = LoadSessionGroupFromSavedModel(session_options, NULL, argv[1], tags, 1,
                                                       options, NULL, status);
  check(status, "load");

  TF_Tensor* text = TF_AllocateTensor(TF_STRING, (const int64_t[]){1}, 1, sizeof(TF_TString));
  TF_TString* string = TF_TensorData(text);
  TF_StringInit(string);
  TF_StringCopy(string, "to be or not to be", strlen("to be or not to be"));

  const char* const feeds[] = {"serving_default_text:0"};
  const char* const fetches[] = {"PartitionedCall:1"};
  TF_Tensor* words = NULL;
  SessionGroup_Run(group, NULL, feeds, &text, 1, fetches, &words, 1, NULL, 0, NULL, status);
  check(status, "run");
  printf("%d different words\n", (int)TF_Dim(words, 0));

  TF_DeleteTensor(words);
  TF_DeleteTensor(text);
  SessionGroup_Delete(group);
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);
  TF_DeleteStatus(status);
  return 0;
}
