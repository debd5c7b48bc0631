#!/usr/bin/env bash
# Builds the library twice, in folders that are new, and compares byte by byte.
set -euo pipefail
cd "$(dirname "$0")/.."
# mimalloc says when it was compiled: as packages do, at the time of the last commit.
SOURCE_DATE_EPOCH=$(packaging/date.sh)
export SOURCE_DATE_EPOCH
out=$PWD/target/reproducible
rm -rf "$out"
mkdir -p "$out"
for build in 1 2; do
    # The same folder: its name is in the library, as the place of sources for debuggers, and of TensorFlow.
    CARGO_TARGET_DIR=$out/build cargo build --release --lib --quiet
    cp "$out/build/release/libsession_group.so" "$out/$build.so"
    rm -r "$out/build"
done
if cmp "$out/1.so" "$out/2.so"; then
    echo "the same $(stat -c %s "$out/1.so") bytes: $(sha256sum <"$out/1.so" | cut -c1-64)"
else
    echo "error: two builds differ: compare $out/1.so and $out/2.so" >&2
    exit 1
fi
