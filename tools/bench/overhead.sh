#!/bin/sh
# Measures what a request costs beside what its graph computes: dispatching, in nanoseconds; a request
# that computes next to nothing, beside TensorFlow's own; its instructions, where valgrind is there.
set -eu
cd "$(dirname "$0")/../.."
stage=$PWD/target/overhead
PKG_CONFIG=${PKG_CONFIG:-$PWD/scripts/pkg-config}
graph=models/build/trivial.pb

rm -rf "$stage"
make --no-print-directory install PREFIX="$stage" >/dev/null
# Where NDEBUG is not set, TensorFlow's classes are laid out in another way than in its library.
# shellcheck disable=SC2046 # Lists of words.
g++ -std=c++17 -O2 -DNDEBUG -w tools/bench/overhead.cc -o "$stage/overhead" \
    $(PKG_CONFIG_PATH="$stage/lib/pkgconfig:${PKG_CONFIG_PATH:-}" "$PKG_CONFIG" --cflags --libs session_group tensorflow)

cargo test --release --quiet --lib dispatch_overhead -- --ignored --nocapture 2>/dev/null |
    grep -oE '(dispatch by|of which).*'
"$stage/overhead" "$graph" 2>/dev/null

if command -v valgrind >/dev/null; then
    valgrind --tool=callgrind --callgrind-out-file="$stage/callgrind.out" \
        --toggle-collect=SessionGroupCallable_Run "$stage/overhead" "$graph" callable 2>"$stage/log"
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$stage/log" |
        awk '{ printf "SessionGroupCallable_Run: %d instructions a request\n", $1 / 1000 }'
    callgrind_annotate --inclusive=yes --threshold=100 "$stage/callgrind.out" |
        awk '/sg_callable_run/ { gsub(",", "", $1); printf "  of these in the executor and its kernels: %d\n", $1 / 1000; exit }'
else
    echo "valgrind is not installed: no instructions are counted"
fi
