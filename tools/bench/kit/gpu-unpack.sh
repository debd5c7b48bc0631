#!/bin/sh
# Puts a kit together from its parts, which lie beside this script, into ./kit or the folder that is
# given. Needs sh, cat and tar.
set -eu
parts=$(cd "$(dirname "$0")" && pwd)
kit=${1:-kit}
mkdir -p "$kit"
for part in "$parts"/gpu-kit.tar.[0-9][0-9]; do
    cat "$part"
done | tar -x -f - -C "$kit"
cd "$kit"
unpack() {
    LD_LIBRARY_PATH=$PWD/xz xz/xz -d -T 0 "$1"
}
pids=
for file in *.xz lib/*.xz; do
    unpack "$file" &
    pids="$pids $!"
done
for pid in $pids; do
    wait "$pid"
done
tar -x -f models.tar
rm models.tar
echo "The kit is in $PWD."
