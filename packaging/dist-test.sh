#!/bin/sh
# Unpacks the tarball in OUT, as a stranger would, and serves a model with a program compiled against it.
#
#     dist-test.sh OUT MODELS
set -eu
cd "$(dirname "$0")/.."
out=$PWD/$1 models=$PWD/$2
(cd "$out" && sha256sum --quiet --check SHA256SUMS)
unpacked=$PWD/target/dist-test
rm -rf "$unpacked"
mkdir -p "$unpacked"
tar -C "$unpacked" -xzf "$out"/session_group-*-tensorflow-*.tar.gz
prefix=$(echo "$unpacked"/*)
libdir=$("${PKG_CONFIG:-pkg-config}" --variable=libdir tensorflow)
includedir=$("${PKG_CONFIG:-pkg-config}" --variable=includedir tensorflow)
"$prefix/bin/session-group-tensorflow" "$libdir" "$includedir"
# shellcheck disable=SC2046 # Lists of words.
gcc -std=c11 c_tests/example.c -o "$unpacked/example" \
    $(PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig pkg-config --cflags --libs session_group)
"$unpacked/example" "$models/strings" 2>/dev/null | grep '^4 different words$'
rm -rf "$unpacked"
