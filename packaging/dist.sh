#!/bin/sh
# Makes tarballs of the sources and of the installed tree, which can be unpacked anywhere, into OUT. The
# same sources and the same build give the same bytes.
#
#     dist.sh OUT VERSION SOVERSION
set -eu
cd "$(dirname "$0")/.."
out=$PWD/$1 version=$2 soversion=$3
tensorflow=$("${PKG_CONFIG:-pkg-config}" --modversion tensorflow | cut -d. -f1,2)
name=session_group-$version-tensorflow-$tensorflow-linux-$(uname -m)

rm -rf "$out"
mkdir -p "$out"
packaging/stage.sh "$out/tree" "/$name" "$version" "$soversion"
cp LICENSE CHANGELOG.md "$out/tree/$name/"
tar -C "$out/tree" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(packaging/date.sh)" \
    -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
rm -rf "$out/tree"
git archive --format=tar --prefix="session_group-$version/" HEAD | gzip -9n >"$out/session_group-$version.tar.gz"
(cd "$out" && sha256sum -- *.tar.gz >SHA256SUMS && cat SHA256SUMS)
