#!/usr/bin/env bash
# Builds and runs services that have a protobuf of their own, Debian's, in each way that docs/usage.md names.
#
#     c_tests/protobuf/run.sh installed PREFIX MODELS      with the library that is installed in PREFIX
#     c_tests/protobuf/run.sh processor LIBRARY MODELS     with a processor
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=$1 path=$2 models=$3
{ command -v protoc && [ -f /usr/include/google/protobuf/message.h ]; } >/dev/null ||
    packaging/need.sh protobuf-compiler libprotobuf-dev

here=c_tests/protobuf
out=target/c_tests/protobuf
mkdir -p "$out"
protoc --proto_path="$here" --cpp_out="$out" "$here/host.proto"
compile() {
    local source=$1 program=$2
    shift 2
    g++ -std=c++17 -O1 -Wall -Wextra -Werror -I"$out" "$source" "$out/host.pb.cc" -o "$out/$program" "$@" \
        -ldl -pthread
}
says() {
    local expected=$1 printed
    shift
    printed=$("$@" 2>&1) || { echo "error: $* has failed: $printed" >&2; exit 1; }
    case $printed in
    *"$expected"*) ;;
    *) echo "error: $* should say \"$expected\": $printed" >&2; exit 1 ;;
    esac
}

if [ "$kind" = processor ]; then
    compile "$here/processor.cc" processor -Icrates/processor/include -lprotobuf
    says "answered 1000 times" "$out/processor" "$models/half_plus" "$path"
    exit
fi

export PKG_CONFIG_PATH=$path/lib/pkgconfig
# TensorFlow's headers have a folder google/protobuf, too: the host's own comes first.
cflags=$(pkg-config --cflags session_group | sed 's/-I/-idirafter /g')
libs=$(pkg-config --libs session_group)

# shellcheck disable=SC2086 # A list of words.
compile "$here/host.cc" deep $cflags -DHOST_LINKS_NOTHING -lprotobuf
says "4 words" "$out/deep" "$models/strings" "$path/lib/libsession_group.so"

echo '{ local: *; };' >"$out/hidden.map"
# shellcheck disable=SC2086 # Lists of words.
compile "$here/host.cc" hidden $cflags -Wl,-Bstatic -lprotobuf -Wl,-Bdynamic \
    -Wl,--version-script="$out/hidden.map" $libs
if nm -D "$out/hidden" | grep -q google8protobuf; then
    echo "error: $out/hidden shows its protobuf to others" >&2
    exit 1
fi
says "4 words" "$out/hidden" "$models/strings"
