#!/usr/bin/env bash
# Runs tests of the model server and of the processor with AddressSanitizer in our Rust and in the C++ shim;
# TensorFlow is as its wheel has it. scripts/sanitize-serving.sh [PYTEST_ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."

# Those of hostile input, connections, batches, updates, and the end.
server_tests="test_age test_batching test_connections test_ending test_grpc test_models test_rest test_v2"
processor_tests="test_hostile test_models test_partitions test_requests test_signatures test_updates"

runtime=$(clang-19 -print-file-name=libclang_rt.asan-x86_64.so 2>/dev/null || true)
if [ ! -e "$runtime" ]; then
    packaging/need.sh clang-19 libclang-rt-19-dev
    runtime=$(clang-19 -print-file-name=libclang_rt.asan-x86_64.so)
fi
export CC=clang-19 CXX=clang++-19
# Sanitizers are unstable flags of a stable compiler.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$PWD/target/asan-serving
# The runtime of clang as a library, since Python has to load it before the processor.
export RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt -Clinker=clang-19 -Clink-arg=-fsanitize=address
    -Clink-arg=-shared-libasan -Clink-arg=-Wl,-rpath,$(dirname "$runtime") -Cforce-frame-pointers=yes"
# The layout of classes must be that of the wheel, whose headers ask for sanitizers by __has_feature.
export SESSION_GROUP_CXXFLAGS="-g -O1 -fno-omit-frame-pointer -fsanitize=address -DSESSION_GROUP_SANITIZER
    -D__has_feature(x)=0 -Wno-builtin-macro-redefined"
# Without mimalloc, which a sanitizer does not watch.
cargo build --release --quiet --target x86_64-unknown-linux-gnu --no-default-features \
    --package session-group-server --package session-group-processor
built=$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release
export SERVER=$built/session_group_model_server PROCESSOR=$built/libserving_processor.so
for file in "$SERVER" "$PROCESSOR"; do
    nm "$file" | grep __asan_report_load8 >/dev/null || { echo "error: $file is without it" >&2; exit 1; }
done

# TensorFlow's two libraries have some symbols in common. Tests end processes by signals, and Python frees little, so
# that leaks are not looked for. What is found stands in files, since processes may end unseen.
reports=$CARGO_TARGET_DIR/reports
rm -rf "$reports"
mkdir "$reports"
export ASAN_OPTIONS=detect_odr_violation=0:allocator_may_return_null=1:detect_leaks=0:log_path=$reports/of
export TF_CPP_MIN_LOG_LEVEL=3 SLOWER=3
# It looks for C++'s exceptions when it starts, and Python has none.
with_runtime() { LD_PRELOAD="$runtime $(clang-19 -print-file-name=libstdc++.so.6)" "$@"; }

# A mistake that must be reported: a request that is longer than its memory.
if with_runtime .venv/bin/python - <<'PYTHON' >/dev/null 2>&1; then
import ctypes, json, os
library = ctypes.CDLL(os.environ["PROCESSOR"])
library.initialize.restype = ctypes.c_void_p
config = json.dumps({"savedmodel_dir": os.path.abspath("models/build/half_plus")})
state = ctypes.c_int(-1)
model = ctypes.c_void_p(library.initialize(b"", config.encode(), ctypes.byref(state)))
assert state.value == 0
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
short = libc.malloc(ctypes.c_size_t(16))
# The name of a signature, of 62 bytes.
ctypes.memmove(ctypes.c_void_p(short), b"\x0a\x3e" + 14 * b"a", 16)
library.process(model, ctypes.c_void_p(short), 64, ctypes.byref(ctypes.c_void_p()), ctypes.byref(ctypes.c_int()))
PYTHON
    echo "error: a read beyond the end is not reported: the sanitizer is not on" >&2
    exit 1
fi
grep -qs "heap-buffer-overflow" "$reports"/* || { echo "error: a read beyond the end failed otherwise" >&2; exit 1; }
echo "a read beyond the end: reported, as it must be"
rm "$reports"/*
ASAN_OPTIONS=$ASAN_OPTIONS:log_path=stderr:verbosity=1 "$SERVER" --version 2>&1 | grep "AddressSanitizer Init done" >/dev/null ||
    { echo "error: the server is without the sanitizer" >&2; exit 1; }

status=0
tests() { for name in $2; do echo "crates/$1/tests/$name.py"; done; }
# shellcheck disable=SC2046 # Lists of words.
.venv/bin/python -m pytest --quiet -n 3 --dist loadfile "$@" $(tests model-server "$server_tests") || status=1
# shellcheck disable=SC2046
with_runtime .venv/bin/python -m pytest --quiet "$@" $(tests processor "$processor_tests") || status=1
if [ -n "$(ls "$reports")" ]; then
    cat "$reports"/* >&2
    echo "error: AddressSanitizer has found something" >&2
    exit 1
fi
exit $status
