#!/bin/sh
# Tests the server as it is built, with TensorFlow Serving's own Python client. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../../.."
if ! command -v haproxy >/dev/null; then
    if [ "$(id -u)" -eq 0 ]; then packaging/need.sh haproxy; else echo "Without HAProxy: its test is left out"; fi
fi
TF_CPP_MIN_LOG_LEVEL=2 exec .venv/bin/python -m pytest --quiet "$@" crates/model-server/tests
