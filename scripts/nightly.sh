#!/usr/bin/env bash
# What takes too long for every change, or builds everything in another way: fuzzing, the soak test, sanitizers,
# Valgrind, tests with overflow checks, licences. MINUTES says how long fuzzing and the soak test take, each.
# Goes on after a failure, and lists what failed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
export MINUTES=${MINUTES:-30}
scripts/steps.sh -k <<'STEPS'
make supply-chain
make soak MINUTES=$MINUTES
make soak-server MINUTES=$MINUTES
make fuzz MINUTES=$MINUTES
make test-debug
cargo check --release --lib --no-default-features
make asan
make asan-serving
make memcheck
make tsan
make dispatches
make reproducible
STEPS
