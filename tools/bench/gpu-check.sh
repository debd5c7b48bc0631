#!/bin/sh
# Compares groups with a stream for each session with what else there is, on a GPU: right answers,
# requests a second, p99, the GPU's memory. Installs TensorFlow's CUDA build into target/gpu, and
# starts CUDA's Multi-Process Service for the processes that are to have it.
#
#     gpu-check.sh [--dry-run] [ARGUMENT ...]      arguments go to the benchmark; --help lists them
#
# A dry run takes the GPUs of c_tests/test_gpu, which compute on the CPU: it shows that all of this
# works, and its figures say nothing.
set -eu
cd "$(dirname "$0")/../.."
out=target/gpu-check models=models/build/gpu
mkdir -p target/gpu "$out"

if [ "${1:-}" = --dry-run ]; then
    shift
    venv=.venv
    make --no-print-directory target/libtest_gpu.so
    set -- --device-library "$PWD/target/libtest_gpu.so" --models mlp-frozen --batches 1 \
        --rounds 2 --seconds 0.2 --redo 0 "$@"
    export TEST_GPU_COUNT=1
else
    if ! command -v nvidia-smi >/dev/null || ! nvidia-smi --list-gpus | grep -q GPU; then
        echo "error: nvidia-smi finds no GPU here: GPU_ARGS=--dry-run shows how far this comes" >&2
        exit 1
    fi
    version=$(sed -n 's/^tensorflow-cpu==//p' requirements.in)
    venv=target/gpu/venv
    if [ ! -e "$venv/installed" ]; then
        echo "Installing TensorFlow $version for CUDA into $venv, about 3 GB to download:"
        "${PYTHON:-python3}" -m venv "$venv"
        "$venv/bin/pip" --disable-pip-version-check install --progress-bar on "tensorflow[and-cuda]==$version"
        touch "$venv/installed"
    fi
    "$venv/bin/python" scripts/lay-tensorflow.py target/gpu/tensorflow
    PKG_CONFIG_PATH=$PWD/target/gpu/tensorflow/lib/pkgconfig
    CARGO_TARGET_DIR=$PWD/target/gpu/build
    LD_LIBRARY_PATH=$(find "$PWD/$venv/lib" -path '*/nvidia/*/lib' -type d | tr '\n' ':')${LD_LIBRARY_PATH:-}
    # With oneDNN, TensorFlow 2.21 fuses a layer normalisation on a GPU into an operation for the CPU alone.
    TF_ENABLE_ONEDNN_OPTS=${TF_ENABLE_ONEDNN_OPTS:-0}
    export PKG_CONFIG_PATH CARGO_TARGET_DIR LD_LIBRARY_PATH TF_ENABLE_ONEDNN_OPTS
    if command -v nvidia-cuda-mps-control >/dev/null && [ -z "${CUDA_MPS_PIPE_DIRECTORY:-}" ]; then
        CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
        CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
        export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
        nvidia-cuda-mps-control -d
        trap 'echo quit | nvidia-cuda-mps-control; rm -rf "$CUDA_MPS_PIPE_DIRECTORY"' EXIT
    fi
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
fi

if [ ! -e "$models/done" ]; then
    echo "Exporting the models (about 20 seconds):"
    "$venv/bin/python" tools/bench/models/tensorflow_models.py "$models" 2>&1 | grep '^made'
    touch "$models/done"
fi
cargo run --release --quiet --package session-group-bench -- gpu --models-dir "$models" --out "$out" "$@"
