#!/usr/bin/env bash
# Runs the Rust tests with a sanitizer in our Rust and in the C++ shim; TensorFlow is as its wheel has
# it. scripts/sanitize.sh address|thread [all]
set -euo pipefail
cd "$(dirname "$0")/.."

# Without `all`, those that look at what a sanitizer can find, and do so in a few minutes.
tests="--lib --test sharing --test load --test faults --test run_options --test optimizations"
[ "${2:-}" != all ] || tests="--lib --tests"
# Limits of address space and of resident memory mean nothing here, and no memory is kept.
skip="--skip whose_threads_the_system_refuses --skip without_memory --skip closing_frees_the_variables
    --skip leave_memory_threads --skip of_300_mb
    --skip have_next_to_no_page_faults --skip limit_of_0_keeps_nothing --skip returns_its_memory
    --skip needs_any_more_is_released --skip sizes_stay_within_the_limit"

command -v clang++-19 >/dev/null || packaging/need.sh clang-19
export CC=clang-19 CXX=clang++-19
# Sanitizers are unstable flags of a stable compiler.
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0
export TF_CPP_MIN_LOG_LEVEL=3
# The layout of classes must be that of the wheel, whose headers ask for sanitizers by __has_feature.
export SESSION_GROUP_CXXFLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=$1 -DSESSION_GROUP_SANITIZER -D__has_feature(x)=0 -Wno-builtin-macro-redefined"
cargo="cargo"
build=""
case $1 in
address)
    export CARGO_TARGET_DIR=$PWD/target/asan
    export RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
    # TensorFlow's two libraries have some symbols in common.
    export ASAN_OPTIONS=detect_odr_violation=0:allocator_may_return_null=1
    export LSAN_OPTIONS=suppressions=$PWD/fuzz/lsan.supp:print_suppressions=0
    # What is open when a process exits is not freed, nor what an exception has left.
    skip="$skip --skip with_open_groups --skip tensorflow_can_not_bear"
    proofs="a_read_beyond_the_end:heap-buffer-overflow a_leak:LeakSanitizer"
    symbol=__asan_report_load8
    ;;
thread)
    export CARGO_TARGET_DIR=$PWD/target/tsan
    # The standard library must be instrumented, too, or its locks are not seen: it is built with the
    # compiler whose sources Debian has.
    dpkg -s rustc-web cargo-web rust-web-src >/dev/null 2>&1 ||
        packaging/need.sh rustc-web cargo-web rust-web-src
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc
    build="-Zbuild-std"
    export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Clinker=clang-19
        -Clink-arg=-fsanitize=thread -Cforce-frame-pointers=yes"
    # Of TensorFlow's own mutexes only a part of what happens to them is seen.
    export TSAN_OPTIONS="suppressions=$PWD/scripts/tsan.supp exitcode=66 history_size=4 report_mutex_bugs=0"
    proofs="a_race:data.race"
    symbol=__tsan_read8
    ;;
*)
    echo "Usage: scripts/sanitize.sh address|thread [all]" >&2
    exit 2
    ;;
esac
run() {
    # shellcheck disable=SC2086 # Lists of words.
    $cargo test --release --quiet --no-fail-fast $build --target x86_64-unknown-linux-gnu "$@"
}

for proof in $proofs; do
    test=${proof%%:*}
    if output=$(run --test sanitizers -- --ignored "$test" 2>&1); then
        echo "error: $test is not reported: the sanitizer is not on" >&2
        exit 1
    fi
    grep -q "${proof#*:}" <<<"$output" || { echo "$output" >&2; echo "error: $test failed otherwise" >&2; exit 1; }
    echo "$test: reported, as it must be"
done
for shim in "$CARGO_TARGET_DIR"/x86_64-unknown-linux-gnu/release/build/session-group-*/out/libsession_group_shim.a; do
    nm "$shim" | grep "U $symbol" >/dev/null || { echo "error: $shim is without it" >&2; exit 1; }
done
# shellcheck disable=SC2086 # Lists of words.
run $tests -- $skip
