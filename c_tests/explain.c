// A group says how it runs what it has prepared, and counts the ways: JSON and SessionGroupStats
// agree.
#include <stddef.h>

#include "test.h"

static SessionGroupStats stats_of(const SessionGroup* group, int32_t session) {
  TF_Status* status = TF_NewStatus();
  SessionGroupStats stats;
  stats.struct_size = sizeof(stats);
  SessionGroup_GetStats(group, session, &stats, status);
  CHECK_OK(status);
  CHECK(stats.way_program + stats.way_no_program + stats.way_run_options + stats.way_may_wait +
            stats.way_no_room + stats.way_disabled + stats.way_visit + stats.way_not_run ==
        stats.runs);
  TF_DeleteStatus(status);
  return stats;
}

// Runs x + 1 on session 0; with a trace, if asked for.
static void add_one(SessionGroup* group, const char* fetch, int traced, TF_Code expected) {
  TF_Status* status = TF_NewStatus();
  const char trace[] = {0x08, 3};  // trace_level = FULL_TRACE
  TF_Buffer* options = traced ? TF_NewBufferFromString(trace, sizeof(trace)) : NULL;
  const int64_t dims[] = {1};
  TF_Tensor* x = TF_AllocateTensor(TF_FLOAT, dims, 1, sizeof(float));
  *(float*)TF_TensorData(x) = 2.0f;
  const char* const feeds[] = {"x"};
  const char* const fetches[] = {fetch};
  TF_Tensor* y = NULL;
  SessionGroup_RunOn(group, 0, options, feeds, &x, 1, fetches, &y, 1, NULL, 0, NULL, status);
  CHECK(TF_GetCode(status) == expected);
  if (expected == TF_OK) {
    CHECK(float_at(y, 0) == 3.0f);
    TF_DeleteTensor(y);
  }
  TF_DeleteTensor(x);
  if (options != NULL) TF_DeleteBuffer(options);
  TF_DeleteStatus(status);
}

static void a_program(void) {
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 2);
  SessionGroup* group = created_group(options, "trivial.pb");
  SessionGroupOptions_Delete(options);
  char* json = text_of(group, SessionGroup_Explain);
  CHECK(strstr(json, "\"programs\":true") != NULL && strstr(json, "\"signatures\":[]") != NULL);
  free(json);

  add_one(group, "y", 0, TF_OK);
  add_one(group, "y:0", 0, TF_OK);
  add_one(group, "y", 1, TF_OK);
  add_one(group, "nowhere", 0, TF_INVALID_ARGUMENT);
  const SessionGroupStats stats = stats_of(group, 0);
  CHECK(stats.runs == 4 && stats.way_program == 2);
  CHECK(stats.way_run_options == 1 && stats.way_not_run == 1);
  CHECK(stats.unresolved == 0 && stats.unfused == 0);
  CHECK(stats_of(group, 1).runs == 0);

  json = text_of(group, SessionGroup_Explain);
  CHECK(strstr(json, "\"fetches\":[\"y:0\"]") != NULL && strstr(json, "nowhere") == NULL);
  CHECK(strstr(json, "\"runs_as\":\"program\"") != NULL && strstr(json, "\"why\":null") != NULL);
  CHECK(strstr(json, "\"writes\":false") != NULL && strstr(json, "\"steps\":null") == NULL);
  CHECK(strstr(json, "\"run_options\":1") != NULL && strstr(json, "\"not_run\":1") != NULL);
  free(json);
  SessionGroup_Delete(group);
}

// An iterator keeps its state in its kernel.
static void no_program(void) {
  SessionGroupOptions* options = NewSessionGroupOptions();
  SessionGroupOptions_SetSessionNum(options, 1);
  SessionGroup* group = created_group(options, "iterator.pb");
  SessionGroupOptions_Delete(options);
  const char* const targets[] = {"begin"};
  const char* const fetches[] = {"next"};
  TF_Tensor* next = NULL;
  TF_Status* status = TF_NewStatus();
  SessionGroup_Run(group, NULL, NULL, NULL, 0, NULL, NULL, 0, targets, 1, NULL, status);
  CHECK_OK(status);
  SessionGroup_Run(group, NULL, NULL, NULL, 0, fetches, &next, 1, NULL, 0, NULL, status);
  CHECK_OK(status);
  TF_DeleteTensor(next);
  const SessionGroupStats before = stats_of(group, 0);
  CHECK(before.way_no_program == before.runs && before.on_pool == 0);
  char* json = text_of(group, SessionGroup_Explain);
  CHECK(strstr(json, "\"runs_as\":\"names\"") != NULL);
  CHECK(strstr(json, "\"why\":\"state in a kernel (Iterator") != NULL);
  CHECK(strstr(json, "input pipeline") != NULL);
  free(json);

  SessionGroup_Close(group, status);
  CHECK_OK(status);
  CHECK(stats_of(group, 0).way_no_program == before.way_no_program);
  json = text_of(group, SessionGroup_Explain);
  CHECK(strstr(json, "\"closed\":true") != NULL && strstr(json, "\"signatures\":[]") != NULL);
  free(json);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

// A caller that was compiled before there were ways gets what it knows of, and no more.
static void an_older_struct(void) {
  SessionGroup* group = initialised_group(1);
  TF_Status* status = TF_NewStatus();
  SessionGroupStats stats;
  memset(&stats, 0x55, sizeof(stats));
  const size_t known = offsetof(SessionGroupStats, way_program);
  stats.struct_size = known;
  SessionGroup_GetStats(group, 0, &stats, status);
  CHECK_OK(status);
  CHECK(stats.struct_size == known && stats.runs == 1 && stats.leader == -1);
  CHECK(stats.way_program == 0x5555555555555555u && stats.unfused == 0x5555555555555555u);
  SessionGroup_Delete(group);
  TF_DeleteStatus(status);
}

int main(void) {
  a_program();
  no_program();
  an_older_struct();
  return 0;
}
