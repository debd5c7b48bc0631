#!/bin/sh
# Makes what compares groups on a GPU where there is no network, no TensorFlow and no compiler: parts
# below 60 MiB in target/gpu-kit, and unpack.sh, which puts them together.
#
#     PRESET=9e MODELS=models/build/bench gpu-kit.sh
#
# What the models don't call stays behind: GPU code for other cards than an H100 or H200, and all of
# cuDNN, cuFFT, cuSOLVER and cuSPARSE, for which empty libraries stand in. TensorFlow opens these when it
# looks for GPUs, but asks for a function only when it calls it.
set -eu
cd "$(dirname "$0")/../../.."
kit=tools/bench/kit
gpu=$PWD/target/gpu
stage=$gpu/kit
out=target/gpu-kit
models=${MODELS:-models/build/bench}

# What TensorFlow's CUDA build was made with, 12.5: later ones are larger.
cublas=12.5.3.2 cudart=12.5.82
stand_ins="libcufft.so.11 libcusolver.so.11 libcusparse.so.12 libcudnn.so.9"

version=$(sed -n 's/^tensorflow-cpu==//p' requirements.in)
venv=$gpu/kit-venv
if [ ! -e "$venv/installed-$version" ]; then
    echo "Installing TensorFlow $version for CUDA into $venv, about 1 GB to download:"
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" --disable-pip-version-check install --progress-bar on --no-deps \
        "tensorflow==$version" "nvidia-cublas-cu12==$cublas" "nvidia-cuda-runtime-cu12==$cudart" lz4 zstandard
    touch "$venv/installed-$version"
fi
# Built for TensorFlow's CPU build, it runs with the CUDA build of the same version, too.
${CARGO:-cargo} build --release --quiet --package session-group-bench

rm -rf "$stage" "$out"
mkdir -p "$stage/lib" "$stage/nvml" "$stage/xz" "$stage/models" "$out"
packages=$(echo "$venv"/lib/python3*/site-packages)
cp "$packages"/tensorflow/libtensorflow_cc.so.2 "$packages"/tensorflow/libtensorflow_framework.so.2 \
    "$packages"/nvidia/cublas/lib/libcublas.so.12 "$packages"/nvidia/cublas/lib/libcublasLt.so.12 \
    "$packages"/nvidia/cuda_runtime/lib/libcudart.so.12 "$stage/lib"
strip "$stage"/lib/*
"$venv/bin/python" $kit/gpu-prune.py "$stage"/lib/libtensorflow_*.so.2
"$venv/bin/python" $kit/gpu-prune.py --floats "$stage"/lib/libcublas*.so.12
# What is compiled here needs these at least as new.
cp -L "$(g++ -print-file-name=libstdc++.so.6)" "$(gcc -print-file-name=libgcc_s.so.1)" "$stage/lib"
for name in $stand_ins; do
    gcc -shared -nostdlib -s -o "$stage/lib/$name" -Wl,-soname,"$name" -x c /dev/null
done
# For a machine without the driver's.
echo 'int nvmlInit_v2(void) { return 0; }' |
    gcc -shared -nostdlib -fPIC -s -o "$stage/nvml/libnvidia-ml.so.1" -Wl,-soname,libnvidia-ml.so.1 -x c -

# In this order: what one needs is opened before it.
printf '%s\n' libcudart.so.12 libcublasLt.so.12 libcublas.so.12 $stand_ins \
    libtensorflow_framework.so.2 libtensorflow_cc.so.2 >"$stage/libraries"
gcc -O2 -Wall -s -o "$stage/gpu-libraries" $kit/gpu-libraries.c -ldl
strip -o "$stage/session-group-bench" target/release/session-group-bench
cp $kit/gpu-run.sh "$stage/run.sh"
for model in dlrm ranker mlp_frozen; do
    cp -r "$models/$model" "$stage/models"
    rm -f "$stage/models/$model/weights.bin" "$stage/models/$model/model.onnx"
done
tar -C "$stage" -cf "$stage/models.tar" models
rm -r "$stage/models"

echo "Compressing (10 to 30 minutes):"
# In blocks, which are unpacked side by side. The filter is for x86 code.
nice -n 5 xz -T 2 --block-size=300MiB --x86 --lzma2="preset=${PRESET:-9e},dict=256MiB" \
    "$stage"/lib/lib*.so* "$stage/session-group-bench"
nice -n 5 xz --lzma2="preset=${PRESET:-9e},dict=256MiB" "$stage/models.tar"
cp "$(command -v xz)" "$stage/xz"
cp -L "$(ldd "$(command -v xz)" | sed -n 's/.*=> \(.*liblzma[^ ]*\).*/\1/p')" "$stage/xz"

tar -C "$stage" --owner=0 --group=0 -cf - . | split -b 59MiB -d - "$out/gpu-kit.tar."
cp $kit/gpu-unpack.sh "$out/unpack.sh"
ls -l "$out"
