#!/bin/sh
# Installs the library to a folder of its own and tests what was installed, as a stranger would use
# it: through CMake, and through pkg-config.
set -eu
cd "$(dirname "$0")/.."
stage=$PWD/target/stage
MODELS=$PWD/models/build
export MODELS

rm -rf "$stage"
make --no-print-directory install PREFIX=/opt/session_group DESTDIR="$stage"
# An installed tree may be moved.
mkdir -p "$stage/moved+to~another"
prefix=$stage/moved+to~another/place_1.0
mv "$stage/opt/session_group" "$prefix"
PKG_CONFIG_PATH=$prefix/lib/pkgconfig
export PKG_CONFIG_PATH

echo "Exported symbols, soname"
nm -D --defined-only "$prefix/lib/libsession_group.so" | awk '{print $3}' | LC_ALL=C sort |
    diff c_tests/exports.txt -
readelf -d "$prefix/lib/libsession_group.so" | grep -q 'soname: \[libsession_group.so.0\]'

echo "Tests through pkg-config"
mkdir -p target/c_tests/pkg-config
for source in c_tests/*.c c_tests/*.cc; do
    program=target/c_tests/pkg-config/$(basename "${source%.*}")
    case $source in
    *.c) compile="gcc -std=c11" ;;
    *) compile="g++ -std=c++17" ;;
    esac
    # Warnings of TensorFlow's own C++ headers are not ours.
    # shellcheck disable=SC2046,SC2086 # Lists of words.
    $compile -Wall -Wextra -Werror "$source" -o "$program" \
        $(pkg-config --cflags --libs session_group | sed 's/-I/-isystem /g') -pthread
done
target/c_tests/pkg-config/example "$MODELS/strings" | grep -q '^4 different words$'
target/c_tests/pkg-config/bad_input

echo "A program that does not link the library"
stock=target/c_tests/stock
# shellcheck disable=SC2046 # Lists of words.
gcc -std=c11 -Wall -Wextra -Werror c_tests/unlinked/stock.c -o "$stock" -Wl,--no-as-needed \
    $(pkg-config --cflags session_group | sed 's/-I/-isystem /g') \
    $(pkg-config --libs session_group | sed 's/-lsession_group//') -ldl
if readelf -d "$stock" | grep NEEDED | grep -q session_group; then
    echo "error: $stock links the library" >&2
    exit 1
fi
library=$prefix/lib/libsession_group.so
says() {
    expected=$1
    shift
    printed=$("$@" 2>&1 || true)
    case $printed in
    *"$expected"*) ;;
    *) echo "error: $* should say \"$expected\": $printed" >&2; exit 1 ;;
    esac
}
says "4 words, one session" "$stock" "$MODELS/strings" ""
says "4 words, one session" env LD_PRELOAD="$library" "$stock" "$MODELS/strings" ""
says "4 words, a group" env LD_PRELOAD="$library" "$stock" "$MODELS/strings" session_group:2
says "4 words, a group" "$stock" "$MODELS/strings" session_group:2 "$library"
says "No session factory" "$stock" "$MODELS/strings" session_group:2
says '"polcy"' env LD_PRELOAD="$library" "$stock" "$MODELS/strings" "session_group://2?polcy=x"

echo "Where TensorFlow is"
use=$prefix/bin/session-group-tensorflow
links=$prefix/lib/session_group/tensorflow
tensorflow=$(readlink "$links/libtensorflow_cc.so.2")
tensorflow_include=$(readlink "$links/include")
says "there is no libtensorflow_cc.so.2 in /nonexistent" "$use" /nonexistent
rm -r "$links"
says "There is no TensorFlow" cmake -S c_tests \
    -B target/c_tests/none -DCMAKE_PREFIX_PATH="$prefix"
"$use" "$(dirname "$tensorflow")" "$tensorflow_include"

echo "Tests through CMake"
cmake -S c_tests -B target/c_tests/cmake -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release \
    >target/c_tests/cmake.log || { cat target/c_tests/cmake.log; exit 1; }
cmake --build target/c_tests/cmake --parallel >>target/c_tests/cmake.log ||
    { cat target/c_tests/cmake.log; exit 1; }
ctest --test-dir target/c_tests/cmake --output-on-failure

echo "Hosts with a protobuf of their own"
c_tests/protobuf/run.sh installed "$prefix" "$MODELS"

echo "Examples"
examples/run.sh "$prefix" "$MODELS"
