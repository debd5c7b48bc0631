// Sends requests from many threads while checkpoints change, and looks at each answer: it has to be
// that of one version, and of none that is older than what the thread has seen of it before.
//
// Usage: updates CONFIG_FILE [THREADS]. Ends when its standard input does. It is written against
// DeepRec's own header, whose declarations these are.
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "messages.h"

void* initialize(const char* model_entry, const char* model_config, int* state);
int process(void* model_buf, const void* input_data, int input_size, void** output_data,
            int* output_size);
int batch_process(void* model_buf, const void* input_data[], int* input_size, void* output_data[],
                  int* output_size);
int get_serving_model_info(void* model_buf, void** output_data, int* output_size);
// Beside them.
void session_group_processor_destroy(void* model_buf);

enum { BATCH = 3, MOST_THREADS = 256, MOST_VERSIONS = 100000 };

static void* model;
static atomic_bool ends;
static atomic_long answers, batches;
static atomic_long seen[MOST_VERSIONS];
static atomic_long slowest_us;

static Bytes request_of(int first) {
  int64_t ids[10];
  for (int i = 0; i < 10; ++i) ids[i] = (first + i * 7) % 100;
  const char* const names[] = {"a", "bc"};
  Bytes request = {.size = 0}, array = array_of_ids(ids, 10);
  put_input(&request, "ids", &array);
  array = array_of_strings(names, 2);
  put_input(&request, "names", &array);
  return request;
}

static void look_at(int state, const void* output, int size) {
  if (state != 200) {
    fprintf(stderr, "state %d: %.*s\n", state, size, (const char*)output);
    abort();
  }
  float least = float_output(output, size, "least"), most = float_output(output, size, "most");
  if (least != most || least != (int)least || least < 1 || least >= MOST_VERSIONS) {
    fprintf(stderr, "an answer of more than one version: %g to %g\n", least, most);
    abort();
  }
  atomic_fetch_add(&seen[(int)least], 1);
  atomic_fetch_add(&answers, 1);
}

static long now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static void* send_requests(void* argument) {
  const int thread = (int)(intptr_t)argument;
  Bytes requests[BATCH];
  for (int i = 0; i < BATCH; ++i) requests[i] = request_of(thread + i);
  for (int n = 0; !atomic_load(&ends); ++n) {
    const long begun = now_us();
    if (n % 4 == 3) {
      const void* inputs[BATCH + 1] = {NULL};
      int sizes[BATCH], output_sizes[BATCH];
      void* outputs[BATCH];
      for (int i = 0; i < BATCH; ++i) {
        inputs[i] = requests[i].data;
        sizes[i] = (int)requests[i].size;
      }
      int state = batch_process(model, inputs, sizes, outputs, output_sizes);
      for (int i = 0; i < BATCH; ++i) {
        look_at(state, outputs[i], output_sizes[i]);
        free(outputs[i]);
      }
      atomic_fetch_add(&batches, 1);
    } else {
      void* output = NULL;
      int size = 0;
      int state = process(model, requests[0].data, (int)requests[0].size, &output, &size);
      look_at(state, output, size);
      free(output);
    }
    const long took = now_us() - begun;
    long slowest = atomic_load(&slowest_us);
    while (took > slowest && !atomic_compare_exchange_weak(&slowest_us, &slowest, took)) {
    }
  }
  return NULL;
}

static long resident_kib(void) {
  FILE* status = fopen("/proc/self/status", "r");
  CHECK(status != NULL);
  char line[256];
  long kib = 0;
  while (fgets(line, sizeof(line), status) != NULL) sscanf(line, "VmRSS: %ld", &kib);
  fclose(status);
  return kib;
}

int main(int argc, char** argv) {
  CHECK(argc >= 2);
  const int threads = argc > 2 ? atoi(argv[2]) : 64;
  CHECK(threads > 0 && threads <= MOST_THREADS);
  char* config = read_file(argv[1]);
  int state = 7;
  model = initialize("", config, &state);
  free(config);
  if (model == NULL || state != 0) return 1;
  pthread_t all[MOST_THREADS];
  for (int i = 0; i < threads; ++i) {
    CHECK(pthread_create(&all[i], NULL, send_requests, (void*)(intptr_t)i) == 0);
  }
  // Each line of the input is answered by what is resident, and by what serves.
  char line[64];
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof(line), stdin) != NULL) {
    void* info = NULL;
    int size = 0;
    CHECK(get_serving_model_info(model, &info, &size) == 200);
    size_t length = 0;
    const uint8_t* path = field(info, (size_t)size, 1, &length, NULL);
    CHECK(path != NULL);
    malloc_trim(0);
    printf("%ld %ld %ld %.*s\n", resident_kib(), atomic_load(&answers),
           atomic_exchange(&slowest_us, 0), (int)length, (const char*)path);
    fflush(stdout);
    free(info);
  }
  atomic_store(&ends, true);
  for (int i = 0; i < threads; ++i) CHECK(pthread_join(all[i], NULL) == 0);
  int versions = 0;
  for (int i = 0; i < MOST_VERSIONS; ++i) versions += atomic_load(&seen[i]) > 0;
  session_group_processor_destroy(model);
  void* output = NULL;
  int size = 0;
  CHECK(process(model, "", 0, &output, &size) == 500);
  free(output);
  printf("%ld answers, %ld batches, of %d versions\n", atomic_load(&answers), atomic_load(&batches),
         versions);
  return 0;
}
