// A plug-in for QEMU's user mode: counts the loads and stores of each cache line, by thread, and
// where the code is that does them. Works with the plug-in interface of version 1 (QEMU 7.2).
//
//     qemu-x86_64 -plugin ./lines.so,out=lines.txt PROGRAM
//
// The program says when to count by the system calls 600001 (begin) and 600002 (end), which no
// kernel has. At exit, writes a line for each cache line that a thread stored to and another
// thread touched:
//
//     ADDRESS WRITERS READERS STORES LOADS STORE_PC=COUNT,... LOAD_PC=COUNT,...
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

// Debian's package has no header for plug-ins; these are the declarations that are used here.
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { kNoRegisters = 0, kLoadsAndStores = 3 };
typedef void (*block_callback)(qemu_plugin_id_t, struct qemu_plugin_tb*);
typedef void (*memory_callback)(unsigned, qemu_plugin_meminfo_t, uint64_t, void*);
typedef void (*exit_callback)(qemu_plugin_id_t, void*);
typedef void (*syscall_callback)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, block_callback);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn*, memory_callback, int, int, void*);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_callback);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_callback, void*);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn*);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

EXPORT int qemu_plugin_version = 1;

// What loads or stores, and how often. The last place counts all that found no place.
enum { kPlaces = 8 };
typedef struct {
  _Atomic uint64_t pc[kPlaces];
  _Atomic uint64_t count[kPlaces];
} Code;

typedef struct {
  _Atomic uint64_t number;            // the address divided by 64; 0 for a free slot
  _Atomic uint64_t writers, readers;  // a bit for each thread, modulo 64
  Code stores, loads;
} Line;

// 300 MB at most, touched as needed.
#define SLOTS (1u << 20)
static Line* lines;
static _Atomic bool counting;
static _Atomic uint64_t without_slot;
static char out[4096] = "lines.txt";

static Line* find(uint64_t number) {
  const uint32_t hash = (uint32_t)(number * UINT64_C(0x9E3779B97F4A7C15) >> 44);
  for (uint32_t i = 0; i < 64; i++) {
    Line* line = &lines[(hash + i) % SLOTS];
    uint64_t is = atomic_load_explicit(&line->number, memory_order_relaxed);
    if (is == 0 && atomic_compare_exchange_strong(&line->number, &is, number)) is = number;
    if (is == number) return line;
  }
  atomic_fetch_add(&without_slot, 1);
  return NULL;
}

static void count(Code* code, uint64_t pc) {
  int place = 0;
  for (; place < kPlaces - 1; place++) {
    uint64_t is = atomic_load_explicit(&code->pc[place], memory_order_relaxed);
    if (is == 0 && atomic_compare_exchange_strong(&code->pc[place], &is, pc)) is = pc;
    if (is == pc) break;
  }
  atomic_fetch_add_explicit(&code->count[place], 1, memory_order_relaxed);
}

static void touched(unsigned thread, qemu_plugin_meminfo_t info, uint64_t address, void* pc) {
  if (!atomic_load_explicit(&counting, memory_order_relaxed)) return;
  Line* line = find(address >> 6);
  if (line == NULL) return;
  const bool is_store = qemu_plugin_mem_is_store(info);
  atomic_fetch_or_explicit(is_store ? &line->writers : &line->readers, UINT64_C(1) << thread % 64,
                           memory_order_relaxed);
  count(is_store ? &line->stores : &line->loads, (uint64_t)pc);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn* instruction = qemu_plugin_tb_get_insn(block, i);
    qemu_plugin_register_vcpu_mem_cb(instruction, touched, kNoRegisters, kLoadsAndStores,
                                     (void*)qemu_plugin_insn_vaddr(instruction));
  }
}

static void called(qemu_plugin_id_t id, unsigned thread, int64_t number, uint64_t a, uint64_t b,
                   uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)thread, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == 600001 || number == 600002) atomic_store(&counting, number == 600001);
}

static uint64_t sum(Code* code) {
  uint64_t all = 0;
  for (int i = 0; i < kPlaces; i++) all += code->count[i];
  return all;
}

static void write_code(FILE* file, Code* code) {
  for (int i = 0; i < kPlaces; i++) {
    if (code->count[i] > 0)
      fprintf(file, "%jx=%ju,", (uintmax_t)code->pc[i], (uintmax_t)code->count[i]);
  }
}

static void ended(qemu_plugin_id_t id, void* unused) {
  (void)id, (void)unused;
  FILE* file = fopen(out, "w");
  if (file == NULL) return perror(out);
  fprintf(file, "# %ju accesses found no slot\n", (uintmax_t)without_slot);
  for (size_t i = 0; i < SLOTS; i++) {
    Line* line = &lines[i];
    if (line->writers == 0 || __builtin_popcountll(line->writers | line->readers) < 2) continue;
    fprintf(file, "%jx %d %d %ju %ju S", (uintmax_t)line->number << 6,
            __builtin_popcountll(line->writers), __builtin_popcountll(line->readers),
            (uintmax_t)sum(&line->stores), (uintmax_t)sum(&line->loads));
    write_code(file, &line->stores);
    fprintf(file, " L");
    write_code(file, &line->loads);
    fprintf(file, "\n");
  }
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc,
                               char** argv) {
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (strncmp(argv[i], "out=", 4) == 0) snprintf(out, sizeof out, "%s", argv[i] + 4);
  }
  lines = calloc(SLOTS, sizeof *lines);
  if (lines == NULL) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}
