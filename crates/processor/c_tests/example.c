#include <stdio.h>
#include <stdlib.h>

#include "serving_processor.h"

// PredictRequest {inputs {"x": ArrayProto {DT_FLOAT, [2], [1.0, 2.0]}}}, as any library of
// protocol buffers writes it.
static const unsigned char kRequest[] = {
    0x12, 0x16, 0x0a, 1, 'x', 0x12, 0x11, 0x08, 1, 0x12, 3, 0x0a,
    1,    2,    0x1a, 8, 0,   0,    0x80, 0x3f, 0, 0,    0, 0x40,
};

// Usage: example SAVED_MODEL_DIR, for a model that takes floats named "x".
int main(int argc, char** argv) {
  if (argc != 2) return 2;
  char config[4096];
  snprintf(config, sizeof(config), "{\"savedmodel_dir\": \"%s\", \"session_num\": 2}", argv[1]);
  int state = -1;
  void* model = initialize("", config, &state);
  if (state != 0) return 1;  // The standard error stream says why.

  void* output = NULL;
  int size = 0;
  state = process(model, kRequest, sizeof(kRequest), &output, &size);
  if (state == 200) {
    printf("a PredictResponse of %d bytes\n", size);
  } else {
    fprintf(stderr, "%s\n", (const char*)output);
  }
  free(output);
  session_group_processor_destroy(model);
  return state == 200 ? 0 : 1;
}
