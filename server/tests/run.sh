#!/bin/sh
# Tests the server as it is built, with TensorFlow Serving's own Python client. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
# Without rights to install it, what needs HAProxy is left out.
command -v haproxy >/dev/null || packaging/need.sh haproxy || true
TF_CPP_MIN_LOG_LEVEL=2 exec .venv/bin/python -m pytest --quiet "$@" server/tests
