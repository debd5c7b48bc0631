#!/bin/sh
# Compares, on this machine's GPU, groups that have a stream for each session with one session, one
# stream and processes. Needs the driver, and nothing else.
#
#     run.sh [--dry-run] [MODEL:BATCH ...]
#
# Writes to $OUT (./results by default), for each comparison, as it ends: json, md, svg. SECONDS_IN_ALL
# (240) limits the whole, ARGS goes to the benchmark, libraries in the folder FIRST go before the kit's.
# A dry run needs no GPU: a stock session and a group on the CPU, which shows that all but the GPU works.
#
# Ends with 0 if all contenders of one comparison were measured, with 2 where there is no GPU, with 1
# otherwise.
set -u
started=$(date +%s)
limit=${SECONDS_IN_ALL:-240}
kit=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$PWD/results}
mkdir -p "$out"
log=$out/log.txt
: >"$log"
dry=
if [ "${1:-}" = --dry-run ]; then
    dry=yes
    shift
fi

say() { echo "$*" | tee -a "$log"; }
left() { echo $((limit - $(date +%s) + started)); }
# Runs a command for so many seconds at most, where there is a `timeout`.
limited() {
    seconds=$1
    shift
    if command -v timeout >/dev/null; then
        set -- timeout -k 5 "$seconds" "$@"
    fi
    "$@"
}

PATH=$PATH:/usr/local/nvidia/bin:/usr/local/cuda/bin
LD_LIBRARY_PATH=${FIRST:+$FIRST:}$kit/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# TensorFlow's element-wise kernels come as PTX: the driver compiles those that are asked for, once.
CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$kit/cache}
CUDA_CACHE_MAXSIZE=1073741824
export PATH LD_LIBRARY_PATH CUDA_CACHE_PATH CUDA_CACHE_MAXSIZE
# With oneDNN, TensorFlow 2.21 fuses a layer normalisation on a GPU into an operation for the CPU alone.
export TF_ENABLE_ONEDNN_OPTS="${TF_ENABLE_ONEDNN_OPTS:-0}"
bench=$kit/session-group-bench

# Where the loader does not know the driver, its folder is looked for.
if [ -z "$dry" ] && ! limited 20 "$kit/gpu-libraries" >/dev/null 2>&1; then
    for folder in /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib64-nvidia /usr/lib/wsl/lib \
        /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib/nvidia /run/opengl-driver/lib \
        $(find /usr /opt -xdev -name libcuda.so.1 -not -path '*compat*' 2>/dev/null | sed 's,/[^/]*$,,'); do
        if [ -e "$folder/libcuda.so.1" ] &&
            LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$folder "$kit/gpu-libraries" >/dev/null 2>&1; then
            LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$folder
            say "The driver is in $folder."
            break
        fi
    done
fi

# TensorFlow finds no GPU where the driver's NVML is missing, although it needs nothing of it.
nvml=libnvidia-ml.so.1
limited 20 "$kit/gpu-libraries" $nvml >/dev/null 2>&1
if [ $? = 1 ]; then
    LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$kit/nvml
    [ -n "$dry" ] || say "There is no $nvml here: an empty library stands in."
fi

# shellcheck disable=SC2046
TF_CPP_MIN_LOG_LEVEL=2 limited 60 "$kit/gpu-libraries" $nvml $(cat "$kit/libraries") >"$out/libraries.txt" 2>&1
status=$?
tee -a "$log" <"$out/libraries.txt"
if [ $status != 0 ] && [ $status != 2 ]; then
    say "error: a library of the kit can't be opened: see above"
    exit 1
fi
if [ $status = 2 ] && [ -z "$dry" ]; then
    say "error: there is no GPU here; --dry-run shows how far this comes without one"
    exit 2
fi

if [ -n "$dry" ]; then
    limited 60 "$bench" --contenders stock,group-caller --models mlp-frozen --batches 1 --rounds 1 \
        --seconds 0.2 --redo 0 --sessions 2 --models-dir "$kit/models" --out "$out/dry-run" >>"$log" 2>&1
    status=$?
    [ $status = 0 ] || tail -n 20 "$log"
    say "dry run: status $status"
    exit $status
fi

if command -v nvidia-smi >/dev/null; then
    limited 20 nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,pstate \
        --format=csv >>"$log" 2>&1
else
    say "There is no nvidia-smi: the report says nothing of the GPU's memory."
fi

# One process by itself, which serves until its input ends, so at once. It shows what TensorFlow says
# when it makes its devices, which the comparison does not, and what CUDA and cuBLAS say of errors.
try_one() {
    try=$out/try-$1-$2
    say "Trying $2 with $1, $(left) s left"
    (
        case $2 in *-mps) ;; *) export CUDA_MPS_PIPE_DIRECTORY=/nonexistent ;; esac
        export TF_CPP_MIN_LOG_LEVEL=0 CUDA_LOG_FILE="$try.cuda.txt" CUBLASLT_LOG_LEVEL=1
        export CUBLASLT_LOG_FILE="$try.cublas.txt"
        limited 60 "$bench" serve "$1" "$2" 1 --sessions 4 --models-dir "$kit/models" </dev/null
    ) >"$try.txt" 2>&1
    status=$?
    grep -E 'Created device|annot dlopen|ould not|ailed|rror|"Err"' "$try.txt" | grep -v 'cuDNN version' |
        cut -c 1-400 | head -n 12 | tee -a "$log"
    say "status $status"
    return $status
}

[ $# -gt 0 ] || set -- ranker:1 dlrm:1 mlp-frozen:1 ranker:32 dlrm:32 mlp-frozen:32
first=${1%:*}
try_one "$first" gpu-streams2 || try_one "$first" gpu-stock

stop_mps() {
    cat "$CUDA_MPS_PIPE_DIRECTORY"/*.log >"$out/mps.txt" 2>/dev/null
    echo quit | limited 10 nvidia-cuda-mps-control >/dev/null 2>&1
    rm -rf "$CUDA_MPS_PIPE_DIRECTORY"
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    trap - EXIT
}
if command -v nvidia-cuda-mps-control >/dev/null && [ -z "${CUDA_MPS_PIPE_DIRECTORY:-}" ]; then
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
    CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    trap stop_mps EXIT
    # The stock session that answers are compared with has it, too.
    if ! limited 20 nvidia-cuda-mps-control -d >>"$log" 2>&1 || ! try_one "$first" gpu-processes-mps; then
        say "CUDA's MPS daemon does not serve here: nothing runs under it."
        stop_mps
    fi
else
    say "There is no nvidia-cuda-mps-control: nothing runs under MPS."
fi

good=0 bad=0 longest=30
for one in "$@"; do
    model=${one%:*} batch=${one#*:}
    if [ "$(left)" -lt $((longest + 5)) ]; then
        say "No time left for $one."
        continue
    fi
    say "Comparing $one, $(left) s left"
    before=$(left)
    # shellcheck disable=SC2086
    limited "$before" "$bench" gpu --models "$model" --batches "$batch" --rounds 2 --seconds 0.5 --redo 0 \
        --models-dir "$kit/models" --out "$out/$model-$batch" ${ARGS:-} >"$out/$model-$batch.txt" 2>&1
    status=$?
    took=$((before - $(left)))
    [ $took -le $longest ] || longest=$took
    say "status $status after $took s"
    if [ $status = 0 ]; then good=$((good + 1)); else bad=$((bad + 1)); fi
    if [ -e "$out/$model-$batch/results.md" ]; then
        tee -a "$log" <"$out/$model-$batch/results.md"
    else
        grep -v -E 'unknown|^ *at ' "$out/$model-$batch.txt" | tail -n 12 | tee -a "$log"
    fi
done
say "$good comparisons whole, $bad not; $(left) s left. Results are in $out."
[ $good -gt 0 ]
