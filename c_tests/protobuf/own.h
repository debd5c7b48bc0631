// The host's own protobuf at work.
#pragma once

#include <google/protobuf/arena.h>
#include <google/protobuf/text_format.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "host.pb.h"

[[noreturn]] inline void Fail(const std::string& message) {
  fprintf(stderr, "%s\n", message.c_str());
  exit(1);
}

// Bytes, arenas, maps, reflection, text.
inline void UseProtobuf() {
  google::protobuf::Arena arena;
  auto* answer = google::protobuf::Arena::CreateMessage<host::Answer>(&arena);
  for (int i = 0; i < 100; ++i) {
    host::Word* word = answer->add_words();
    word->set_text("word " + std::to_string(i));
    (*word->mutable_counts())["all"] = i;
  }
  host::Answer parsed, from_text;
  std::string text;
  if (!parsed.ParseFromString(answer->SerializeAsString()) ||
      !google::protobuf::TextFormat::PrintToString(parsed, &text) ||
      !google::protobuf::TextFormat::ParseFromString(text, &from_text) ||
      from_text.words_size() != 100 || from_text.words(99).counts().at("all") != 99) {
    Fail("the host's own protobuf is broken");
  }
}
