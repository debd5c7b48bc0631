#!/usr/bin/env bash
# Serves the demo model, and says how to ask it. crates/model-server/serve.sh [FLAG...]: more flags for the server.
set -euo pipefail
cd "$(dirname "$0")/../.."
port=${PORT:-8500}
rest_port=${REST_PORT:-8501}
models=$PWD/target/serve
mkdir -p "$models/wide_deep"
ln -sfn "$PWD/models/build/wide_deep" "$models/wide_deep/1"

ids=$(printf '7,%.0s' {1..26})
dense=$(printf '0.5,%.0s' {1..13})
cat <<TEXT
Serving Wide & Deep, a score for 26 ids, 13 numbers and a country, on 2 sessions. Ask it with

  curl -d '{"instances": [{"ids": [${ids%,}], "dense": [${dense%,}], "country": "at"}]}' \\
    localhost:$rest_port/v1/models/wide_deep:predict

or with TensorFlow Serving's client in Python

  .venv/bin/python crates/model-server/ask.py --port $port

Ctrl-C ends it.

TEXT
TF_CPP_MIN_LOG_LEVEL=2 exec target/release/session_group_model_server --port="$port" --rest_api_port="$rest_port" \
    --model_name=wide_deep --model_base_path="$models/wide_deep" --session_num_per_group=2 "$@"
