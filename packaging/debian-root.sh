#!/bin/sh
# Makes a minimal Debian, of this system's release and from where this system has its packages, in ROOT. As root.
#
#     debian-root.sh VARIANT ROOT PACKAGE...
set -eu
cd "$(dirname "$0")/.."
variant=$1 root=$2
shift 2
command -v mmdebstrap >/dev/null || packaging/need.sh mmdebstrap
# shellcheck disable=SC1091 # This system's, for its code name.
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
sources=$(find /etc/apt/sources.list /etc/apt/sources.list.d -name '*.sources' -o -name '*.list' -size +0 2>/dev/null | head -1)
rm -rf "$root"
mkdir -p "$(dirname "$root")"
mmdebstrap --quiet --mode=root --variant="$variant" --include="$(echo "$*" | tr ' ' ,)" "$suite" "$root" "$sources"
