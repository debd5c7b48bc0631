#!/usr/bin/env bash
# Which lines of Rust and of the C++ shim the tests run: the Rust tests and the C and C++ programs of
# c_tests. Tables are printed; target/coverage has every line.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v llvm-cov-19 >/dev/null || packaging/need.sh llvm-19
scripts/cargo-tool.sh cargo-llvm-cov 0.9.1
PATH=$PWD/target/tools/bin:$PWD/.venv/bin:$PATH
export CARGO_TARGET_DIR=$PWD/target/coverage/build
export LLVM_COV=llvm-cov-19 LLVM_PROFDATA=llvm-profdata-19
export TF_CPP_MIN_LOG_LEVEL=3
MODELS=$PWD/models/build
export MODELS
# GCC's gcov for the shim, LLVM's for Rust.
export SESSION_GROUP_CXXFLAGS="--coverage -O0 -fno-inline"

[ -x target/coverage/venv/bin/gcovr ] || {
    "${PYTHON:-python3}" -m venv target/coverage/venv
    target/coverage/venv/bin/pip install --quiet gcovr==8.8
}
# shellcheck disable=SC1090 # Variables.
source <(cargo llvm-cov show-env --sh --no-cfg-coverage 2>/dev/null)
export RUSTFLAGS="${RUSTFLAGS:-} -Clink-arg=--coverage"
cargo llvm-cov clean --profraw-only
mkdir -p "$CARGO_TARGET_DIR"
find "$CARGO_TARGET_DIR" -name '*.gcda' -delete

# Coverage itself writes files.
cargo test --lib --tests --no-fail-fast -- --skip loading_writes_no_files
cargo build --lib
# The programs, on the library as it is built here.
mkdir -p target/coverage/c_tests
ln -sf "$CARGO_TARGET_DIR/debug/libsession_group.so" target/coverage/libsession_group.so.0
read -ra flags < <(scripts/pkg-config --cflags --libs tensorflow | sed 's/-I/-isystem /g')
libdir=$(scripts/pkg-config --variable=libdir tensorflow)
g++ -std=c++17 -O2 -fPIC -shared "${flags[@]}" c_tests/test_gpu/test_gpu.cc -o target/coverage/libtest_gpu.so
export TEST_GPU_LIBRARY=$PWD/target/coverage/libtest_gpu.so
for source in c_tests/*.c c_tests/*.cc; do
    program=target/coverage/c_tests/$(basename "${source%.*}")
    case $source in
    *.c) compile="gcc -std=c11" ;;
    *) compile="g++ -std=c++17" ;;
    esac
    $compile "$source" -o "$program" -Iinclude "${flags[@]}" -L"$CARGO_TARGET_DIR/debug" \
        -lsession_group -pthread -Wl,-rpath,"$PWD/target/coverage:$libdir"
    arguments=()
    [ "$program" != target/coverage/c_tests/example ] || arguments=("$MODELS/strings")
    "$program" "${arguments[@]}" >/dev/null || { echo "error: $program" >&2; exit 1; }
done

elsewhere='/(stock|tests|benches)/|/\.cargo/|/rustc/'
cargo llvm-cov report --ignore-filename-regex "$elsewhere" --html --output-dir target/coverage/rust \
    >/dev/null 2>&1
profile=$(find "$CARGO_TARGET_DIR" -maxdepth 1 -name '*.profdata' | head -1)
echo "Rust                                                lines   missed     cover"
tests=()
for program in $(find "$CARGO_TARGET_DIR/debug/deps" -maxdepth 1 -type f -perm -100 ! -name '*.so'); do
    tests+=(-object "$program")
done
# The library first: of a function in several programs, the first counts.
llvm-cov-19 report "$CARGO_TARGET_DIR/debug/libsession_group.so" "${tests[@]}" \
    -instr-profile="$profile" -ignore-filename-regex="$elsewhere" 2>/dev/null |
    awk '$8 ~ /^[0-9]/ { printf "%-48s %8s %8s %9s\n", $1, $8, $9, $10 }'
target/coverage/venv/bin/gcovr --root . --filter src/tensorflow/ --object-directory "$CARGO_TARGET_DIR" \
    --gcov-ignore-parse-errors=all --merge-mode-functions=merge-use-line-0 --merge-lines \
    --html-details target/coverage/cpp.html --txt - "$CARGO_TARGET_DIR" 2>/dev/null
echo "Line by line: target/coverage/rust/html/index.html, target/coverage/cpp.html"
