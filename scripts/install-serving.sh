#!/bin/sh
# Adds the processor and the model server, as far as they are built, to a tree that install.sh has made.
#
#     install-serving.sh BUILT_DIR DESTDIR PREFIX
set -eu
built=$1 root=$2$3
source=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -e "$root/lib/session_group/tensorflow" ]; then
    echo "error: run \`make install\` with the same DESTDIR and PREFIX first" >&2
    exit 1
fi
installed=
if [ -e "$built/libserving_processor.so" ]; then
    install -m 755 "$built/libserving_processor.so" "$root/lib/"
    install -m 644 "$source/crates/processor/include/serving_processor.h" "$root/include/"
    install -D -m 644 "$source/crates/processor/proto/predict.proto" "$root/share/session_group/predict.proto"
    installed="$installed libserving_processor.so"
fi
if [ -e "$built/session_group_model_server" ]; then
    install -m 755 "$built/session_group_model_server" "$root/bin/"
    install -D -m 644 "$source/crates/model-server/man/session_group_model_server.1" -t "$root/share/man/man1"
    installed="$installed session_group_model_server"
fi
if [ -z "$installed" ]; then
    echo "error: run \`make processor server\` first, or one of them" >&2
    exit 1
fi
echo "installed in $root:$installed"
