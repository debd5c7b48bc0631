#!/bin/sh
# Tests the server as it is built, with TensorFlow Serving's own Python client. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../.."
TF_CPP_MIN_LOG_LEVEL=2 exec .venv/bin/python -m pytest --quiet "$@" server/tests
