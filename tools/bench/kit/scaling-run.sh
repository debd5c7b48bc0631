#!/bin/sh
# Measures how requests a second grow from one to all CPUs of this machine, in about four minutes, and
# writes scaling.json, scaling.md, scaling.svg and scaling.log into the folder $OUT (default: results).
#
#     run.sh [ARGUMENT ...]          --help lists the arguments
set -eu
kit=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-results}
mkdir -p "$out"
rm -f "$out/failed"
export LD_LIBRARY_PATH="$kit/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" TF_CPP_MIN_LOG_LEVEL=2
# One kind of kernels for all, since oneDNN's are slower for requests of one row.
export TF_ENABLE_ONEDNN_OPTS="${TF_ENABLE_ONEDNN_OPTS:-0}"
# Each process that loads TensorFlow reads 800 MB: from memory, not from the disk.
cat "$kit"/lib/* "$kit"/models/*/*.* >/dev/null
{
    lscpu 2>/dev/null || grep -m1 'model name' /proc/cpuinfo
    cat /sys/fs/cgroup/cpu.max 2>/dev/null || true
    "$kit/bin/session-group-bench" scaling --models-dir "$kit/models" --venv "$kit/venv" --out "$out" \
        --models wide-deep,dlrm,trivial --seconds 0.2 --minutes 3.5 "$@" || touch "$out/failed"
} 2>&1 | tee "$out/scaling.log"
[ ! -e "$out/failed" ]
