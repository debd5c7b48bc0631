#!/bin/sh
# Builds the examples against the library installed in PREFIX, runs them and checks what they print.
#
#     run.sh PREFIX MODELS
set -eu
prefix=$(cd "$1" && pwd) models=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."
build=target/examples

if ! pkg-config --exists cpp-httplib nlohmann_json; then
    packaging/need.sh libcpp-httplib-dev nlohmann-json3-dev
fi
mkdir -p "$build"
cmake -S examples -B "$build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
    >"$build/log" || { cat "$build/log"; exit 1; }
cmake --build "$build" --parallel >>"$build/log" || { cat "$build/log"; exit 1; }

echo "examples/c/serve"
served=$("$build/serve" "$models/wide_deep")
echo "$served"
# 8 threads with 500 requests, and one of each of 4 sessions to warm up.
[ "$(echo "$served" | awk '{ sum += $3 } END { print sum }')" -eq 4004 ]

echo "examples/cpp/before, after"
before=$("$build/before" "$models/strings")
after=$("$build/after" "$models/strings")
[ "$before" = "6400 words" ] && [ "$after" = "$before" ]
echo "$after"

echo "examples/http"
python3 examples/http/test.py "$build/server" "$models"

echo "README.md, C++"
awk '/^```cpp$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$build/readme.cc"
# shellcheck disable=SC2046 # Lists of words.
g++ -std=c++17 -Wall -Wextra -Werror "$build/readme.cc" -o "$build/readme" \
    $(PKG_CONFIG_PATH=$prefix/lib/pkgconfig pkg-config --cflags --libs session_group | sed 's/-I/-isystem /g')
# It names the model as a program at the root of the sources does.
[ "$("$build/readme" 2>/dev/null)" = "4 different words" ]
