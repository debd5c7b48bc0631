// A program that has functions of general names of its own, for all libraries to see.
//
// Usage: names SAVED_MODEL_DIR, for a model that takes floats named "x".
#include <stdio.h>
#include <stdlib.h>

#include "serving_processor.h"

void destroy(void* anything) {
  (void)anything;
  fprintf(stderr, "the program's own destroy()\n");
  abort();
}

int batch_process_n(void) {
  fprintf(stderr, "the program's own batch_process_n()\n");
  abort();
}

// PredictRequest {inputs {"x": ArrayProto {DT_FLOAT, [2], [1.0, 2.0]}}}.
static const unsigned char kRequest[] = {
    0x12, 0x16, 0x0a, 1, 'x', 0x12, 0x11, 0x08, 1, 0x12, 3, 0x0a,
    1,    2,    0x1a, 8, 0,   0,    0x80, 0x3f, 0, 0,    0, 0x40,
};

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  char config[4096];
  snprintf(config, sizeof(config), "{\"savedmodel_dir\": \"%s\"}", argv[1]);
  int state = -1;
  void* model = initialize("", config, &state);
  if (state != 0) return 1;
  const void* requests[] = {kRequest, NULL};
  int size = sizeof(kRequest), output_size = 0;
  void* output = NULL;
  if (batch_process(model, requests, &size, &output, &output_size) != 200) return 1;
  free(output);
  if (session_group_processor_batch_process_n(model, 1, requests, &size, &output, &output_size,
                                              &state) != 200) {
    return 1;
  }
  free(output);
  session_group_processor_destroy(model);
  if (process(model, kRequest, size, &output, &output_size) != 500) return 1;
  free(output);
  printf("answered twice, ended\n");
  return 0;
}
