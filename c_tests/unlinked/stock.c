// A program that does not link the library and knows nothing of it: serves a SavedModel with
// TensorFlow's C API, on the target that it is told.
//
//     stock SAVED_MODEL TARGET [LIBRARY]      opens the library first, if one is given
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static int fail(const char* message) {
  fprintf(stderr, "%s\n", message);
  return 1;
}

// How many threads the process has whose names begin with "sg", as those of a group do.
static int group_threads(void) {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  for (struct dirent* task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
    char path[300], name[32] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
    FILE* file = fopen(path, "r");
    if (file == NULL) continue;
    if (fgets(name, sizeof(name), file) != NULL && strncmp(name, "sg", 2) == 0) ++count;
    fclose(file);
  }
  if (tasks != NULL) closedir(tasks);
  return count;
}

int main(int argc, char** argv) {
  if (argc < 3) return fail("usage: stock SAVED_MODEL TARGET [LIBRARY]");
  if (argc > 3 && dlopen(argv[3], RTLD_NOW | RTLD_LOCAL) == NULL) return fail(dlerror());
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  TF_SetTarget(options, argv[2]);
  TF_Graph* graph = TF_NewGraph();
  const char* const tags[] = {"serve"};
  TF_Session* session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  if (TF_GetCode(status) != TF_OK) return fail(TF_Message(status));

  TF_Tensor* text = TF_AllocateTensor(TF_STRING, (const int64_t[]){1}, 1, sizeof(TF_TString));
  TF_StringInit((TF_TString*)TF_TensorData(text));
  TF_StringCopy((TF_TString*)TF_TensorData(text), "to be or not to be", 18);
  const TF_Output feed = {TF_GraphOperationByName(graph, "serving_default_text"), 0};
  const TF_Output fetch = {TF_GraphOperationByName(graph, "PartitionedCall"), 1};
  TF_Tensor* counts = NULL;
  TF_SessionRun(session, NULL, &feed, &text, 1, &fetch, &counts, 1, NULL, 0, NULL, status);
  if (TF_GetCode(status) != TF_OK) return fail(TF_Message(status));
  printf("%d words, %s\n", (int)TF_Dim(counts, 0), group_threads() > 0 ? "a group" : "one session");

  TF_DeleteTensor(counts);
  TF_DeleteTensor(text);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}
