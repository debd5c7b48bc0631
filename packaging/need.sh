#!/bin/sh
# Installs Debian packages, as root.
set -eu
if [ "$(id -u)" -ne 0 ]; then
    echo "error: not root: run \`apt-get install $*\` as root, then try again" >&2
    exit 1
fi
echo "Installing Debian packages: $*"
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
