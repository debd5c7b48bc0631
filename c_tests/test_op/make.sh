#!/bin/sh
# make.sh OUT: compiles the library against TensorFlow's headers.
set -eu
out=$(realpath "$1")
cd "$(dirname "$0")/../.."
tensorflow() { "${PKG_CONFIG:-scripts/pkg-config}" "$1" tensorflow; }
# shellcheck disable=SC2046,SC2086
exec ${CXX:-g++} -std=c++17 -O1 -DNDEBUG -fPIC -shared $(tensorflow --cflags | sed 's/-I/-isystem /g') \
  c_tests/test_op/twice.cc -o "$out" $(tensorflow --libs)
