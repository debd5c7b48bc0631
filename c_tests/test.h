// What the C and C++ tests share.
#ifndef SESSION_GROUP_C_TESTS_TEST_H_
#define SESSION_GROUP_C_TESTS_TEST_H_

#ifndef _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L  // setenv, mkdtemp
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session_group.h"

// Unlike assert(), also there with NDEBUG.
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

#define CHECK_OK(status) check_ok(__FILE__, __LINE__, status)

static inline void check_ok(const char* file, int line, const TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s:%d: error %d: %s\n", file, line, (int)TF_GetCode(status), TF_Message(status));
  exit(1);
}

// The path of a test model. Overwritten by the next call.
static inline const char* model(const char* name) {
  static char path[4096];
  const char* dir = getenv("MODELS");
  CHECK(dir != NULL);
  snprintf(path, sizeof(path), "%s/%s", dir, name);
  return path;
}

// The bytes of a file, to be freed by the caller.
static inline char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  CHECK(file != NULL);
  CHECK(fseek(file, 0, SEEK_END) == 0);
  *size = (size_t)ftell(file);
  rewind(file);
  char* data = (char*)malloc(*size);
  CHECK(fread(data, 1, *size, file) == *size);
  fclose(file);
  return data;
}

static inline TF_Tensor* strings(const char* const* values, int n) {
  const int64_t dims[] = {n};
  TF_Tensor* tensor = TF_AllocateTensor(TF_STRING, dims, 1, (size_t)n * sizeof(TF_TString));
  TF_TString* data = (TF_TString*)TF_TensorData(tensor);
  for (int i = 0; i < n; ++i) {
    TF_StringInit(&data[i]);
    TF_StringCopy(&data[i], values[i], strlen(values[i]));
  }
  return tensor;
}

static inline TF_Tensor* scalar(float value) {
  TF_Tensor* tensor = TF_AllocateTensor(TF_FLOAT, NULL, 0, sizeof(value));
  *(float*)TF_TensorData(tensor) = value;
  return tensor;
}

static inline float float_at(const TF_Tensor* tensor, int i) {
  return ((const float*)TF_TensorData(tensor))[i];
}

// A group with the graph of a test model.
static inline SessionGroup* created_group(const SessionGroupOptions* options, const char* name) {
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroup* group = NewSessionGroupWithOptions(session_options, options, status);
  CHECK_OK(status);
  TF_DeleteSessionOptions(session_options);
  size_t size = 0;
  char* graph_def = read_file(model(name), &size);
  SessionGroup_Create(group, graph_def, size, status);
  CHECK_OK(status);
  free(graph_def);
  TF_DeleteStatus(status);
  return group;
}

// A group of so many sessions with the graph of init_op.pb, which has been initialised.
static inline SessionGroup* initialised_group(int32_t session_num) {
  TF_Status* status = TF_NewStatus();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, session_num);
  SessionGroup* group = created_group(options, "init_op.pb");
  SessionGroupOptions_Delete(options);
  const char* const targets[] = {"initialize"};
  SessionGroup_Run(group, NULL, NULL, NULL, 0, NULL, NULL, 0, targets, 1, NULL, status);
  CHECK_OK(status);
  TF_DeleteStatus(status);
  return group;
}

// What a function fills a buffer with, as a string that the caller frees.
static inline char* text_of(const SessionGroup* group,
                            void (*fill)(const SessionGroup*, TF_Buffer*, TF_Status*)) {
  TF_Status* status = TF_NewStatus();
  TF_Buffer* buffer = TF_NewBuffer();
  fill(group, buffer, status);
  CHECK_OK(status);
  char* text = (char*)calloc(buffer->length + 1, 1);
  memcpy(text, buffer->data, buffer->length);
  TF_DeleteBuffer(buffer);
  TF_DeleteStatus(status);
  return text;
}

#endif  // SESSION_GROUP_C_TESTS_TEST_H_
