#!/usr/bin/env bash
# Runs C programs of c_tests, against the library as it is built, under Valgrind's memcheck: errors and
# what is definitely lost. scripts/memcheck.sh [PROGRAM...]
set -euo pipefail
cd "$(dirname "$0")/.."
# Those that do not fork, load plug-ins or ask for threads without end.
programs=${*:-abi callable example explain group load options run stats version}
command -v valgrind >/dev/null || packaging/need.sh valgrind
MODELS=$PWD/models/build
export MODELS TF_CPP_MIN_LOG_LEVEL=3

out=$PWD/target/memcheck
mkdir -p "$out"
ln -sf "$PWD/target/release/libsession_group.so" "$out/libsession_group.so.0"
read -ra flags < <(scripts/pkg-config --cflags --libs tensorflow | sed 's/-I/-isystem /g')
libdir=$(scripts/pkg-config --variable=libdir tensorflow)
valgrind() {
    # Valgrind runs one thread at a time: by turns, or those that wait never get theirs.
    command valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
        --show-leak-kinds=definite --fair-sched=yes --suppressions=scripts/valgrind.supp --num-callers=30 "$@"
}

# A mistake that must be reported.
cat >"$out/wrong.c" <<'C'
#include <stdlib.h>
int main(void) {
  volatile char* bytes = malloc(16);
  return bytes[16] == 1 ? 1 : 0;
}
C
gcc -g "$out/wrong.c" -o "$out/wrong"
if valgrind "$out/wrong" 2>/dev/null; then
    echo "error: Valgrind does not report a read beyond the end" >&2
    exit 1
fi
for program in $programs; do
    gcc -std=c11 -g "c_tests/$program.c" -o "$out/$program" -Iinclude "${flags[@]}" \
        -Ltarget/release -lsession_group -pthread -Wl,-rpath,"$out:$libdir"
    arguments=()
    [ "$program" != example ] || arguments=("$MODELS/strings")
    begun=$SECONDS
    valgrind "$out/$program" "${arguments[@]}" >"$out/$program.log" 2>&1 || {
        cat "$out/$program.log" >&2
        echo "error: $program" >&2
        exit 1
    }
    echo "$program: no errors, nothing lost, $((SECONDS - begun)) s"
done
