// Serves a SavedModel from 8 threads with a group of four sessions, and says what each of them did.
//
//     serve SAVED_MODEL       (one with the inputs of models/build/wide_deep)
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session_group.h"

enum { SESSIONS = 4, THREADS = 8, REQUESTS = 500, INPUTS = 3, IDS = 26, NUMBERS = 13 };

static const char* const kFeeds[INPUTS] = {"serving_default_ids:0", "serving_default_dense:0",
                                           "serving_default_country:0"};
static const char* const kFetches[] = {"StatefulPartitionedCall:0"};

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

// One row of features, which the caller deletes.
static void make_request(unsigned seed, TF_Tensor* inputs[INPUTS]) {
  inputs[0] = TF_AllocateTensor(TF_INT64, (const int64_t[]){1, IDS}, 2, IDS * sizeof(int64_t));
  int64_t* ids = TF_TensorData(inputs[0]);
  for (int i = 0; i < IDS; ++i) ids[i] = (seed * 7919L + i * 104729L) % 1000000;
  inputs[1] =
      TF_AllocateTensor(TF_FLOAT, (const int64_t[]){1, NUMBERS}, 2, NUMBERS * sizeof(float));
  float* dense = TF_TensorData(inputs[1]);
  for (int i = 0; i < NUMBERS; ++i) dense[i] = (float)((seed + i) % 10) / 10;
  inputs[2] = TF_AllocateTensor(TF_STRING, (const int64_t[]){1}, 1, sizeof(TF_TString));
  TF_TString* country = TF_TensorData(inputs[2]);
  TF_StringInit(country);
  TF_StringCopy(country, seed % 2 ? "de" : "us", 2);
}

// A thread of the server. It shares the callable, which holds the names looked up, with all others.
static void* serve(void* callable) {
  TF_Status* status = TF_NewStatus();
  for (unsigned i = 0; i < REQUESTS; ++i) {
    TF_Tensor* inputs[INPUTS];
    TF_Tensor* score = NULL;
    make_request(i, inputs);
    SessionGroupCallable_Run(callable, inputs, INPUTS, &score, 1, status);
    check(status, "run");
    TF_DeleteTensor(score);
    for (int j = 0; j < INPUTS; ++j) TF_DeleteTensor(inputs[j]);
  }
  TF_DeleteStatus(status);
  return NULL;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s SAVED_MODEL\n", argv[0]);
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* session_options = TF_NewSessionOptions();
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, SESSIONS);
  SessionGroupOptions_SetPolicy(options, "least_loaded", status);
  check(status, "policy");

  SessionGroup* group = LoadSessionGroupFromSavedModel(
      session_options, NULL, argv[1], (const char* const[]){"serve"}, 1, options, NULL, status);
  check(status, "load");
  SessionGroupOptions_Delete(options);
  TF_DeleteSessionOptions(session_options);

  // The first request of a session prepares it, which takes longer: before there are clients.
  TF_Tensor* inputs[INPUTS];
  make_request(0, inputs);
  SessionGroup_WarmUp(group, kFeeds, inputs, INPUTS, kFetches, 1, NULL, 0, status);
  check(status, "warm up");
  for (int i = 0; i < INPUTS; ++i) TF_DeleteTensor(inputs[i]);

  SessionGroupCallable* callable =
      SessionGroup_MakeCallable(group, kFeeds, INPUTS, kFetches, 1, NULL, 0, status);
  check(status, "callable");

  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; ++i) {
    if (pthread_create(&threads[i], NULL, serve, callable) != 0) return 1;
  }
  for (int i = 0; i < THREADS; ++i) pthread_join(threads[i], NULL);

  for (int i = 0; i < SessionGroup_SessionNum(group); ++i) {
    SessionGroupStats stats;
    memset(&stats, 0, sizeof(stats));
    stats.struct_size = sizeof(stats);
    SessionGroup_GetStats(group, i, &stats, status);
    check(status, "stats");
    printf("session %d: %llu requests, p50 %.0f us, p99 %.0f us\n", i,
           (unsigned long long)stats.runs, (double)stats.latency_p50_ns / 1e3,
           (double)stats.latency_p99_ns / 1e3);
  }
  SessionGroupCallable_Delete(callable);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
  return 0;
}
