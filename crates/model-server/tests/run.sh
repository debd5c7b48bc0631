#!/bin/sh
# Tests the server as it is built, with TensorFlow Serving's own Python client. Arguments go to pytest. Test files run
# side by side, because most of them wait for times of the server's most of the time; -n 0 runs one after the other.
set -eu
cd "$(dirname "$0")/../../.."
# need PROGRAM PACKAGE WHAT: installs the package that has the program, or says what is left out without it.
need() {
    command -v "$1" >/dev/null && return
    if [ "$(id -u)" -eq 0 ]; then packaging/need.sh "$2"; else echo "Without $1: $3 left out"; fi
}
need haproxy haproxy "its test is"
need promtool prometheus "tests of the rules for alerts are"
TF_CPP_MIN_LOG_LEVEL=2 exec .venv/bin/python -m pytest --quiet -n 3 --dist loadfile "$@" crates/model-server/tests
