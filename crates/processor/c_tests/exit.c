// Ends while a model is open and, mostly, takes a checkpoint.
//
// Usage: exit CONFIG_FILE MICROSECONDS
#include <unistd.h>

#include "messages.h"
#include "serving_processor.h"

int main(int argc, char** argv) {
  CHECK(argc == 3);
  char* config = read_file(argv[1]);
  int state = 7;
  CHECK(initialize("", config, &state) != NULL && state == 0);
  free(config);
  usleep((useconds_t)atoi(argv[2]));
  return 0;
}
