/* Opens each library that is named, binding all it needs, and then looks for a GPU through the
 * driver. Ends with 1 where a library can't be opened, with 2 where there is no GPU.
 *
 *     gpu-libraries [LIBRARY ...]
 */
#include <dlfcn.h>
#include <stdio.h>

static void *driver;

/* Calls a function of the driver; all of them give 0 where they succeed. */
#define CALL(name, types, ...) \
  (((int(*) types)dlsym(driver, #name)) ? ((int(*) types)dlsym(driver, #name))(__VA_ARGS__) : -1)

static int find_gpus(void) {
  int error, version = 0, count = 0;

  driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) {
    printf("no GPU: %s\n", dlerror());
    return 2;
  }
  error = CALL(cuInit, (unsigned), 0);
  if (error) {
    printf("no GPU: cuInit gives error %d\n", error);
    return 2;
  }
  CALL(cuDriverGetVersion, (int *), &version);
  error = CALL(cuDeviceGetCount, (int *), &count);
  printf("driver for CUDA %d.%d, %d GPUs\n", version / 1000, version % 1000 / 10, count);
  if (error || count < 1) return 2;
  for (int i = 0; i < count; i++) {
    char name[100] = "?";
    int device = 0, major = 0, minor = 0;
    size_t bytes = 0;
    CALL(cuDeviceGet, (int *, int), &device, i);
    CALL(cuDeviceGetName, (char *, int, int), name, sizeof name, device);
    CALL(cuDeviceTotalMem_v2, (size_t *, int), &bytes, device);
    CALL(cuDeviceGetAttribute, (int *, int, int), &major, 75, device);
    CALL(cuDeviceGetAttribute, (int *, int, int), &minor, 76, device);
    printf("GPU %d: %s, %zu MiB, sm_%d%d\n", i, name, bytes >> 20, major, minor);
    if (major != 9) printf("warning: this kit has code for sm_90 alone\n");
  }
  return 0;
}

int main(int argc, char **argv) {
  int failed = 0;

  for (int i = 1; i < argc; i++) {
    if (dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL)) {
      printf("opened %s\n", argv[i]);
    } else {
      printf("can't open %s: %s\n", argv[i], dlerror());
      failed = 1;
    }
  }
  return failed ? failed : find_gpus();
}
