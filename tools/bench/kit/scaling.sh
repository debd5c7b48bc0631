#!/bin/sh
# Packs what `session-group-bench scaling` needs on a machine with many cores and nothing else: the program,
# TensorFlow's and ONNX Runtime's libraries, the models.
#
#     scaling.sh OUT
set -eu
cd "$(dirname "$0")/../../.."
out=${1:-target/kits}
kit=target/kits/staged/scaling-kit
models="wide_deep dlrm ranker mlp_frozen trivial"
packages=$(echo tools/bench/.venv/lib/python3*/site-packages)

rm -rf "$kit"
mkdir -p "$kit/bin" "$kit/lib" "$kit/models" "$kit/venv/lib/python3/site-packages/onnxruntime/capi"
strip --strip-all -o "$kit/bin/session-group-bench" target/release/session-group-bench
cp --dereference third_party/tensorflow/lib/libtensorflow_cc.so.2 \
    third_party/tensorflow/lib/libtensorflow_framework.so.2 "$kit/lib"
cp "$packages"/onnxruntime/capi/libonnxruntime.so.* "$kit/venv/lib/python3/site-packages/onnxruntime/capi"
for model in $models; do
    cp -r "models/build/bench/$model" "$kit/models"
done
cp tools/bench/kit/scaling-run.sh "$kit/run.sh"
tools/bench/kit/pack.sh "$kit" "$out"
rm -rf "$kit"
