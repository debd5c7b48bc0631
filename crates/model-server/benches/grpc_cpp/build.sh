#!/bin/sh
# Builds what the model server is compared with, with Debian's gRPC, as target/bench/grpc_cpp.
set -eu
cd "$(dirname "$0")/../../../.."
out=target/bench/grpc
include=$PWD/third_party/tensorflow/include
command -v grpc_cpp_plugin >/dev/null && [ -e /usr/include/grpcpp/grpcpp.h ] ||
    packaging/need.sh libgrpc++-dev protobuf-compiler-grpc protobuf-compiler pkg-config

rm -rf "$out"
mkdir -p "$out/protos" "$out/include/tensorflow" "$out/include/xla/tsl" "$out/include/tsl"
# The C API alone: the other headers need TensorFlow's own protobuf.
for folder in tensorflow/c tensorflow/core/platform xla/tsl/c xla/tsl/platform tsl/platform; do
    [ -d "$include/$folder" ] || continue
    mkdir -p "$out/include/$folder"
    find "$include/$folder" -maxdepth 1 \( -path '*/c/*.h' -o -name 'ctstring*.h' \) \
        -exec cp {} "$out/include/$folder" \;
done
paths="crates/model-server/proto crates/serving-common/proto"
# Those that a prediction needs.
set -- tensorflow_serving/apis/prediction_service.proto
for name in predict classification regression inference get_model_metadata input model; do
    set -- "$@" "tensorflow_serving/apis/$name.proto"
done
for name in core/framework/tensor core/framework/tensor_shape core/framework/types core/example/example \
    core/example/feature core/protobuf/meta_graph; do
    set -- "$@" "tensorflow/$name.proto"
done
# shellcheck disable=SC2046,SC2086 # Lists of words.
protoc $(printf -- '-I %s ' $paths) -I /usr/include --cpp_out="$out/protos" --grpc_out="$out/protos" \
    --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" "$@"
# shellcheck disable=SC2046 # Lists of words.
${CXX:-g++} -std=c++17 -O2 -w -I "$out/protos" -I "$out/include" crates/model-server/benches/grpc_cpp/server.cc \
    $(find "$out/protos" -name '*.pb.cc') -o target/bench/grpc_cpp \
    $(pkg-config --cflags --libs grpc++ protobuf) -ldl
