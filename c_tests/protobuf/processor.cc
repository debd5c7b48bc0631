// A service with a protobuf of its own, which opens the processor deeply bound, asks it, and parses
// and writes messages before, meanwhile and after.
//
//     processor SAVED_MODEL LIBRARY     for a model that takes floats named "x"
#include <dlfcn.h>

#include <atomic>
#include <thread>

#include "own.h"
#include "serving_processor.h"

namespace {

// PredictRequest {inputs {"x": ArrayProto {DT_FLOAT, [2], [1.0, 2.0]}}}.
constexpr unsigned char kRequest[] = {
    0x12, 0x16, 0x0a, 1, 'x', 0x12, 0x11, 0x08, 1, 0x12, 3, 0x0a,
    1,    2,    0x1a, 8, 0,   0,    0x80, 0x3f, 0, 0,    0, 0x40,
};

template <typename F>
F* Function(void* library, const char* name) {
  void* found = dlsym(library, name);
  if (found == nullptr) Fail(dlerror());
  return reinterpret_cast<F*>(found);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) Fail("usage: processor SAVED_MODEL LIBRARY");
  UseProtobuf();
  void* library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (library == nullptr) Fail(dlerror());
  UseProtobuf();

  const std::string config =
      std::string("{\"session_num\": 2, \"savedmodel_dir\": \"") + argv[1] + "\"}";
  int state = -1;
  void* model = Function<decltype(initialize)>(library, "initialize")("", config.c_str(), &state);
  if (state != 0) Fail("initialize() has failed");

  std::atomic<bool> over{false};
  std::thread other([&over] {
    while (!over) UseProtobuf();
  });
  auto* process = Function<decltype(::process)>(library, "process");
  for (int i = 0; i < 1000; ++i) {
    void* output = nullptr;
    int size = 0;
    if (process(model, kRequest, sizeof(kRequest), &output, &size) != 200)
      Fail("process() has failed");
    free(output);
  }
  over = true;
  other.join();
  Function<decltype(session_group_processor_destroy)>(library,
                                                      "session_group_processor_destroy")(model);
  UseProtobuf();
  printf("answered 1000 times\n");
  return 0;
}
