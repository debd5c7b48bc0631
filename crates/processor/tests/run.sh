#!/bin/sh
# Tests the processor as it is built, with models and checkpoints of stock TensorFlow. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/../../.."
TF_CPP_MIN_LOG_LEVEL=2 exec .venv/bin/python -m pytest --quiet "$@" crates/processor/tests
