#!/usr/bin/env bash
# Fuzzes, with AddressSanitizer and LeakSanitizer in Rust and in the C++ shim; `answers` compares the library
# that was built with stock TensorFlow, without them. What is found stands in target/fuzz/findings, and ends
# the run.
set -euo pipefail
cd "$(dirname "$0")/.."

targets="cpuset target plan abi graph_def saved_model http1 http2 requests configuration checkpoint answers"
usage() {
    echo "Usage: fuzz/run.sh MINUTES [TARGET...]"
    echo "Shares the minutes out among the targets, by default all: $targets"
    echo "FUZZ_SEED: where \`answers\` begins; by default anywhere"
}
case ${1:-} in
"" | -h | --help) usage; exit 0 ;;
esac
minutes=$1
shift
[ $# -eq 0 ] || targets=$*
for target in $targets; do
    [ "$target" = answers ] || [ -f "fuzz/fuzz_targets/$target.rs" ] ||
        { echo "error: no target $target" >&2; usage >&2; exit 2; }
done

# Of the time: the targets that find most get most.
weight() {
    case $1 in
    abi | answers) echo 4 ;;
    graph_def | saved_model) echo 2 ;;
    *) echo 1 ;;
    esac
}
all=0
for target in $targets; do all=$((all + $(weight "$target"))); done
seconds_of() {
    awk "BEGIN { print int($minutes * 60 * $(weight "$1") / $all) }"
}

others=
for target in $targets; do
    if [ "$target" != answers ]; then
        others="$others $target"
        continue
    fi
    [ -f target/release/libsession_group.so ] || { echo "error: run \`make build\` first" >&2; exit 1; }
    seconds=$(seconds_of answers)
    echo "== answers: $seconds s"
    .venv/bin/python fuzz/answers/run.py --seconds "$seconds" --seed "${FUZZ_SEED:-$(date +%s)}"
done
targets=$others
[ -n "$targets" ] || exit 0

command -v clang++-19 >/dev/null || packaging/need.sh clang-19
scripts/cargo-tool.sh cargo-fuzz 0.13.2
PATH=$PWD/target/tools/bin:$PATH

# Sanitizers and coverage are unstable flags of a stable compiler.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$PWD/target/fuzz
export CC=clang-19 CXX=clang++-19
# The layout of classes must be that of the wheel, whose headers ask for sanitizers by __has_feature.
export SESSION_GROUP_CXXFLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=address
    -fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp
    -DSESSION_GROUP_SANITIZER -D__has_feature(x)=0 -Wno-builtin-macro-redefined"
export TF_CPP_MIN_LOG_LEVEL=3
# TensorFlow's two libraries have some symbols in common, and graphs may ask for any amount of memory.
export ASAN_OPTIONS=detect_odr_violation=0:allocator_may_return_null=1
export LSAN_OPTIONS=suppressions=$PWD/fuzz/lsan.supp:print_suppressions=0
# Targets leave files behind.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
unset RUST_BACKTRACE

cargo fuzz build --fuzz-dir fuzz --release
bin=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release
for shim in "$bin"/build/session-group-*/out/libsession_group_shim.a; do
    nm "$shim" | grep "U __asan_report_load8" >/dev/null || { echo "error: $shim is without it" >&2; exit 1; }
done

# GraphDefs and SavedModels to begin with are the test models themselves.
corpus=$CARGO_TARGET_DIR/corpus
for target in $targets; do mkdir -p "$corpus/$target" "$CARGO_TARGET_DIR/findings/$target"; done
mkdir -p "$corpus/graph_def" "$corpus/saved_model" "$CARGO_TARGET_DIR/tensorflow"
for model in trivial init_op slow waits writes if_write function_table mutable_table replaced; do
    cp "models/build/$model.pb" "$corpus/graph_def/"
done
number=0
for file in saved_model.pb variables/variables.index variables/variables.data-00000-of-00001; do
    # shellcheck disable=SC2059 # The format is the byte.
    { printf "\\$number"; cat "models/build/tf1_saved_model/$file"; } >"$corpus/saved_model/$number"
    number=$((number + 1))
done

limits="-timeout=100 -max_len=16384 -rss_limit_mb=6000 -malloc_limit_mb=1000000"

# Whether stock TensorFlow can't bear the input either.
is_tensorflows() {
    case $1 in
    graph_def | saved_model) ;;
    *) return 1 ;;
    esac
    # shellcheck disable=SC2086 # A list of words.
    ! SESSION_GROUP_FUZZ_STOCK=1 "$bin/$1" $limits "$2" >"$CARGO_TARGET_DIR/stock.log" 2>&1
}

for target in $targets; do
    seconds=$(seconds_of "$target")
    echo "== $target: $seconds s"
    end=$((SECONDS + seconds))
    seeds=
    [ ! -d "fuzz/seeds/$target" ] || seeds=fuzz/seeds/$target
    # Looking for leaks after each input takes the server longer than the input; it is done at the end.
    leaks=
    case $target in
    http1 | http2 | requests | configuration | checkpoint) leaks=-detect_leaks=0 ;;
    esac
    words=
    [ ! -f "fuzz/dictionaries/$target" ] || words=-dict=fuzz/dictionaries/$target
    runs=0
    while [ $SECONDS -lt $end ]; do
        log=$CARGO_TARGET_DIR/$target.log
        rm -f "$CARGO_TARGET_DIR/findings/$target"/*
        # shellcheck disable=SC2086 # Lists of words.
        if "$bin/$target" -max_total_time=$((end - SECONDS)) -print_final_stats=1 $limits $leaks $words \
            -artifact_prefix="$CARGO_TARGET_DIR/findings/$target/" \
            "$corpus/$target" $seeds >"$log" 2>&1; then
            failed=
        else
            failed=$(find "$CARGO_TARGET_DIR/findings/$target" -type f ! -name "slow-unit-*" | head -1)
            [ -n "$failed" ] || { tail -50 "$log" >&2; exit 1; }
        fi
        executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        runs=$((runs + ${executed:-0}))
        if [ -n "$failed" ] && is_tensorflows "$target" "$failed"; then
            echo "stock TensorFlow ends the process, too, for $(basename "$failed"): going on"
            mv "$failed" "$CARGO_TARGET_DIR/tensorflow/"
        elif [ -n "$failed" ]; then
            grep -v '^#' "$log" | tail -80 >&2
            echo "error: $target has found $failed; to repeat it: $bin/$target $failed" >&2
            exit 1
        fi
    done
    echo "$runs inputs, $(find "$corpus/$target" -type f | wc -l) of them kept, none failed here"
done
