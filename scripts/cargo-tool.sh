#!/bin/sh
# Installs a tool of this version into target/tools, unless it is there: cargo-tool.sh CRATE VERSION
set -eu
cd "$(dirname "$0")/.."
if grep -qsF "\"$1 $2 " target/tools/.crates.toml; then
    exit 0
fi
echo "Installing $1 $2 into target/tools, a few minutes:"
CARGO_TARGET_DIR=$PWD/target/tools/build RUSTFLAGS="" \
    cargo install --locked --quiet --root target/tools --version "$2" "$1"
