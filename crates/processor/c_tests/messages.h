// As much of protocol buffers as a test needs to make requests and to read answers.
#ifndef PROCESSOR_C_TESTS_MESSAGES_H_
#define PROCESSOR_C_TESTS_MESSAGES_H_

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                            \
    }                                                                     \
  } while (0)

typedef struct {
  uint8_t data[4096];
  size_t size;
} Bytes;

static inline void put(Bytes* to, const void* data, size_t size) {
  CHECK(to->size + size <= sizeof(to->data));
  memcpy(to->data + to->size, data, size);
  to->size += size;
}

static inline void put_varint(Bytes* to, uint64_t value) {
  do {
    uint8_t byte = (uint8_t)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
    put(to, &byte, 1);
    value >>= 7;
  } while (value != 0);
}

static inline void put_field(Bytes* to, int number, const void* data, size_t size) {
  put_varint(to, (uint64_t)number << 3 | 2);
  put_varint(to, size);
  put(to, data, size);
}

static inline void put_input(Bytes* request, const char* alias, const Bytes* array) {
  Bytes entry = {.size = 0};
  put_field(&entry, 1, alias, strlen(alias));
  put_field(&entry, 2, array->data, array->size);
  put_field(request, 2, entry.data, entry.size);
}

// An ArrayProto of one dimension; its elements come after it.
static inline Bytes array_of(int dtype, size_t n) {
  Bytes array = {.size = 0}, dim = {.size = 0}, shape = {.size = 0};
  put_varint(&array, 1 << 3);
  put_varint(&array, (uint64_t)dtype);
  put_varint(&dim, n);
  put_field(&shape, 1, dim.data, dim.size);
  put_field(&array, 2, shape.data, shape.size);
  return array;
}

static inline Bytes array_of_ids(const int64_t* ids, size_t n) {
  Bytes array = array_of(9, n), packed = {.size = 0};
  for (size_t i = 0; i < n; ++i) put_varint(&packed, (uint64_t)ids[i]);
  put_field(&array, 7, packed.data, packed.size);
  return array;
}

static inline Bytes array_of_strings(const char* const* strings, size_t n) {
  Bytes array = array_of(7, n);
  for (size_t i = 0; i < n; ++i) put_field(&array, 6, strings[i], strlen(strings[i]));
  return array;
}

static inline uint64_t take_varint(const uint8_t** at, const uint8_t* end) {
  uint64_t value = 0;
  for (int shift = 0; *at < end; shift += 7) {
    uint8_t byte = *(*at)++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

// The bytes of a field of a message, NULL where it has none. `number` is of a field with a length.
static inline const uint8_t* field(const uint8_t* at, size_t size, int number, size_t* length,
                                   const char* key) {
  const uint8_t* end = at + size;
  while (at < end) {
    uint64_t tag = take_varint(&at, end);
    if ((tag & 7) == 0) {
      take_varint(&at, end);
      continue;
    }
    CHECK((tag & 7) == 2);
    *length = take_varint(&at, end);
    const uint8_t* data = at;
    at += *length;
    CHECK(at <= end);
    if ((int)(tag >> 3) != number) continue;
    if (key == NULL) return data;
    // An entry of a map.
    size_t key_length = 0, value_length = 0;
    const uint8_t* own = field(data, *length, 1, &key_length, NULL);
    if (own == NULL || key_length != strlen(key) || memcmp(own, key, key_length) != 0) continue;
    const uint8_t* value = field(data, *length, 2, &value_length, NULL);
    *length = value_length;
    return value;
  }
  return NULL;
}

// The only element of an output of type float.
static inline float float_output(const void* response, int size, const char* alias) {
  size_t length = 0;
  const uint8_t* array = field(response, (size_t)size, 1, &length, alias);
  CHECK(array != NULL);
  const uint8_t* values = field(array, length, 3, &length, NULL);
  CHECK(values != NULL && length == sizeof(float));
  float value;
  memcpy(&value, values, sizeof(value));
  return value;
}

static inline char* read_file(const char* path) {
  FILE* file = fopen(path, "rb");
  CHECK(file != NULL);
  char* text = calloc(1, 1 << 16);
  size_t size = fread(text, 1, (1 << 16) - 1, file);
  CHECK(size > 0);
  fclose(file);
  return text;
}

#endif  // PROCESSOR_C_TESTS_MESSAGES_H_
