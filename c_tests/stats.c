// What a group says of itself: counters, quantiles, metrics, description.
#include "test.h"

static void run(SessionGroup* group, int32_t session, TF_Tensor* word, TF_Code expected) {
  TF_Status* status = TF_NewStatus();
  const char* const feeds[] = {"word"};
  const char* const fetches[] = {"y"};
  TF_Tensor* y = NULL;
  SessionGroup_RunOn(group, session, NULL, feeds, &word, 1, fetches, &y, 1, NULL, 0, NULL, status);
  CHECK(TF_GetCode(status) == expected);
  if (y != NULL) TF_DeleteTensor(y);
  TF_DeleteStatus(status);
}

static SessionGroupStats stats_of(const SessionGroup* group, int32_t session) {
  TF_Status* status = TF_NewStatus();
  SessionGroupStats stats;
  memset(&stats, 0x55, sizeof(stats));
  stats.struct_size = sizeof(stats);
  SessionGroup_GetStats(group, session, &stats, status);
  CHECK_OK(status);
  CHECK(stats.struct_size == sizeof(stats));
  TF_DeleteStatus(status);
  return stats;
}

static void check_counters(const SessionGroup* group) {
  const SessionGroupStats one = stats_of(group, 1);
  CHECK(one.runs == 6 && one.answers[TF_OK] == 5 && one.answers[TF_INVALID_ARGUMENT] == 1);
  CHECK(one.rejected == 0 && one.in_flight == 0 && one.queued == 0);
  CHECK(one.busy_ns > 0 && one.latency_sum_ns >= one.busy_ns);
  CHECK(0 < one.latency_p50_ns && one.latency_p50_ns <= one.latency_p90_ns &&
        one.latency_p90_ns <= one.latency_p99_ns && one.latency_p99_ns <= one.latency_p999_ns &&
        one.latency_p999_ns <= one.latency_max_ns);
  TF_Status* status = TF_NewStatus();
  CHECK(SessionGroup_LatencyQuantile(group, 1, 0.5, status) == one.latency_p50_ns);
  CHECK_OK(status);
  TF_DeleteStatus(status);
  const SessionGroupStats none = stats_of(group, 2);
  CHECK(none.runs == 0 && none.latency_max_ns == 0 && none.busy_ns == 0);
}

// Of the process, which keeps memory only for groups that are open.
static void check_memory(bool is_open) {
  TF_Status* status = TF_NewStatus();
  SessionGroupMemoryStats stats;
  stats.struct_size = sizeof(stats);
  SessionGroup_GetMemoryStats(&stats, status);
  CHECK_OK(status);
  CHECK(stats.struct_size == sizeof(stats));
  CHECK((stats.kept_limit_bytes > 0) == is_open);
  CHECK(stats.kept_bytes <= stats.kept_limit_bytes);
  stats.struct_size = sizeof(stats) - 1;
  SessionGroup_GetMemoryStats(&stats, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  SessionGroup_GetMemoryStats(NULL, status);
  CHECK(TF_GetCode(status) == TF_INVALID_ARGUMENT);
  TF_DeleteStatus(status);
}

int main(void) {
  SessionGroup* group = initialised_group(3);
  const char* const words[] = {"a"};
  TF_Tensor* word = strings(words, 1);
  TF_Tensor* wrong = scalar(1.0f);
  for (int i = 0; i < 5; ++i) run(group, 1, word, TF_OK);
  run(group, 4, wrong, TF_INVALID_ARGUMENT);  // 4 mod 3
  check_counters(group);

  char* metrics = text_of(group, SessionGroup_MetricsText);
  CHECK(strstr(metrics, "session=\"1\",code=\"OK\"} 5\n") != NULL);
  CHECK(strstr(metrics, "session=\"1\",code=\"INVALID_ARGUMENT\"} 1\n") != NULL);
  CHECK(strstr(metrics, "session=\"1\",way=\"no_program\"} 6\n") != NULL);
  CHECK(strstr(metrics, "session=\"1\",way=\"program\"} 0\n") != NULL);
  CHECK(strstr(metrics, "\nsession_group_large_tensors_kept_bytes ") != NULL);
  free(metrics);
  check_memory(true);

  char* json = text_of(group, SessionGroup_Describe);
  CHECK(strstr(json, "\"execution\":\"caller\"") != NULL);
  CHECK(strstr(json, "\"closed\":false") != NULL);
  free(json);

  // A caller with a longer struct, of a newer header, learns how much was filled.
  struct {
    SessionGroupStats known;
    uint64_t newer;
  } longer;
  memset(&longer, 0x55, sizeof(longer));
  longer.known.struct_size = sizeof(longer);
  TF_Status* status = TF_NewStatus();
  SessionGroup_GetStats(group, 1, &longer.known, status);
  CHECK_OK(status);
  CHECK(longer.known.struct_size == sizeof(SessionGroupStats));
  CHECK(longer.newer == 0x5555555555555555u);

  SessionGroup_Close(group, status);
  CHECK_OK(status);
  check_memory(false);
  check_counters(group);
  json = text_of(group, SessionGroup_Describe);
  CHECK(strstr(json, "\"closed\":true") != NULL);
  free(json);

  SessionGroup_Delete(group);
  TF_DeleteTensor(word);
  TF_DeleteTensor(wrong);
  TF_DeleteStatus(status);
  return 0;
}
