#!/bin/sh
# Installs the Debian packages that are missing: what tensorflow-sys' build script links, pkg-config,
# and venv for the system's Python.
set -eu
if ! command -v cargo >/dev/null; then
    echo "error: there is no Rust: install 1.90 or newer, with rustup" >&2
    exit 1
fi
missing=""
command -v pkg-config >/dev/null || missing="$missing pkg-config"
{ command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing="$missing libssl-dev"
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -z "$missing" ] && exit 0
echo "Installing Debian packages:$missing"
if [ "$(id -u)" -ne 0 ]; then
    echo "error: not root: run \`apt-get install$missing\` as root, then try again" >&2
    exit 1
fi
apt-get update -q
# shellcheck disable=SC2086 # A list of words.
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
