#!/bin/sh
# Counts stores to cache lines that threads share, under QEMU, in groups and in the model server as it is built.
# Arguments go to sharing.py.
set -eu
cd "$(dirname "$0")/../.."
stage=$PWD/target/sharing
PKG_CONFIG=${PKG_CONFIG:-$PWD/scripts/pkg-config}
command -v qemu-x86_64 >/dev/null || packaging/need.sh qemu-user

rm -rf "$stage"
make --no-print-directory install PREFIX="$stage" >/dev/null
for name in lines marks; do
    ${CC:-cc} -O2 -shared -fPIC "tools/sharing/$name.c" -o "$stage/$name.so"
done
# Where NDEBUG is not set, TensorFlow's classes are laid out in another way than in its library.
# shellcheck disable=SC2046 # Lists of words.
${CXX:-g++} -std=c++20 -O2 -DNDEBUG -w tools/sharing/drive.cc -o "$stage/drive" -pthread \
    $(PKG_CONFIG_PATH="$stage/lib/pkgconfig:${PKG_CONFIG_PATH:-}" "$PKG_CONFIG" --cflags --libs session_group tensorflow)
.venv/bin/python tools/sharing/sharing.py "$stage" "$@"
.venv/bin/python tools/sharing/server.py "$stage"
