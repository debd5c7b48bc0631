// A service with a protobuf of its own, which is not TensorFlow's: serves a SavedModel by a group,
// and parses and writes messages before, meanwhile and after.
//
//     host SAVED_MODEL LIBRARY     opens the library deeply bound
//     host SAVED_MODEL             has it linked
#include <dlfcn.h>
#include <session_group.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "own.h"

namespace {

void* library;

// The function of the library that was opened, or the one that is linked.
template <typename F>
F* Function(const char* name, F* linked) {
  if (library == nullptr) return linked;
  void* found = dlsym(library, name);
  if (found == nullptr) Fail(dlerror());
  return reinterpret_cast<F*>(found);
}

#ifdef HOST_LINKS_NOTHING
#define CALL(name) Function<decltype(name)>(#name, nullptr)
#else
#define CALL(name) Function<decltype(name)>(#name, &name)
#endif

void CheckStatus(TF_Status* status) {
  if (CALL(TF_GetCode)(status) != TF_OK) Fail(CALL(TF_Message)(status));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) Fail("usage: host SAVED_MODEL [LIBRARY]");
  UseProtobuf();
  if (argc > 2 && (library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND)) == nullptr)
    Fail(dlerror());
  UseProtobuf();

  TF_Status* status = CALL(TF_NewStatus)();
  TF_SessionOptions* session_options = CALL(TF_NewSessionOptions)();
  SessionGroupOptions* options = CALL(NewSessionGroupOptions)();
  CALL(SessionGroupOptions_SetSessionNum)(options, 2);
  const char* tags[] = {"serve"};
  SessionGroup* group = CALL(LoadSessionGroupFromSavedModel)(session_options, nullptr, argv[1],
                                                             tags, 1, options, nullptr, status);
  CheckStatus(status);

  std::atomic<bool> over{false};
  std::thread other([&over] {
    while (!over) UseProtobuf();
  });
  TF_Tensor* text = CALL(TF_AllocateTensor)(TF_STRING, (const int64_t[]){1}, 1, sizeof(TF_TString));
  auto* data = static_cast<TF_TString*>(CALL(TF_TensorData)(text));
  CALL(TF_StringInit)(data);
  CALL(TF_StringCopy)(data, "to be or not to be", 18);
  const char* feeds[] = {"serving_default_text:0"};
  const char* fetches[] = {"PartitionedCall:1"};
  for (int i = 0; i < 1000; ++i) {
    TF_Tensor* counts = nullptr;
    CALL(SessionGroup_Run)(group, nullptr, feeds, &text, 1, fetches, &counts, 1, nullptr, 0,
                           nullptr, status);
    CheckStatus(status);
    if (CALL(TF_Dim)(counts, 0) != 4) Fail("a wrong answer");
    CALL(TF_DeleteTensor)(counts);
  }
  over = true;
  other.join();

  CALL(TF_DeleteTensor)(text);
  CALL(SessionGroup_Delete)(group);
  CALL(SessionGroupOptions_Delete)(options);
  CALL(TF_DeleteSessionOptions)(session_options);
  CALL(TF_DeleteStatus)(status);
  UseProtobuf();
  printf("4 words, protobuf %d\n", GOOGLE_PROTOBUF_VERSION);
  return 0;
}
