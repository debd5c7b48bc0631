#!/bin/sh
# Builds the Debian packages of the built library into OUT.
#
#     deb.sh OUT VERSION SOVERSION
set -eu
cd "$(dirname "$0")/.."
out=$PWD/$1 version=$2 soversion=$3
architecture=$(dpkg --print-architecture)
tensorflow=$("${PKG_CONFIG:-pkg-config}" --modversion tensorflow | cut -d. -f1,2)
for tool in dpkg-shlibdeps:dpkg-dev fakeroot:fakeroot; do
    command -v "${tool%:*}" >/dev/null || packaging/need.sh "${tool#*:}"
done

tree=$out/tree
rm -rf "$out"
mkdir -p "$out"
packaging/stage.sh "$tree" /usr "$version" "$soversion"

cat >"$out/changelog" <<END
session-group ($version) unstable; urgency=medium

  * CHANGELOG.md tells what is new.

 -- SessionGroup developers <maintainers@session-group.invalid>  $(date -Rud "@$(packaging/date.sh)")
END

# What each package has.
runtime=$out/libsession-group$soversion development=$out/libsession-group-dev
for package in "$runtime" "$development"; do
    mkdir -p "$package/DEBIAN" "$package/usr/lib" "$package/usr/share/doc/$(basename "$package")"
    cp packaging/debian/copyright "$package/usr/share/doc/$(basename "$package")/"
    gzip -9nc "$out/changelog" >"$package/usr/share/doc/$(basename "$package")/changelog.gz"
done
mkdir -p "$runtime/usr/sbin"
mv "$tree/usr/lib/libsession_group.so.$version" "$tree/usr/lib/libsession_group.so.$soversion" "$runtime/usr/lib/"
chmod 644 "$runtime/usr/lib/libsession_group.so.$version"
mv "$tree/usr/bin/session-group-tensorflow" "$runtime/usr/sbin/"
echo "libsession_group $soversion libsession-group$soversion (>= $version)" >"$runtime/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"$runtime/DEBIAN/triggers"
install -m 755 packaging/debian/postrm "$runtime/DEBIAN/"
rmdir "$tree/usr/bin"
cp -a "$tree/usr/." "$development/usr/"

# What the library needs of Debian. TensorFlow's libraries are no Debian package.
mkdir -p "$out/debian"
: >"$out/debian/control"
depends=$(cd "$out" && dpkg-shlibdeps --ignore-missing-info -O \
    -l"$("${PKG_CONFIG:-pkg-config}" --variable=libdir tensorflow)" \
    "$runtime/usr/lib/libsession_group.so.$version" 2>/dev/null | sed 's/^shlibs:Depends=//')

for package in "$runtime" "$development"; do
    name=$(basename "$package")
    sed -e "s|@VERSION@|$version|g" -e "s|@SOVERSION@|$soversion|g" -e "s|@DEPENDS@|$depends|g" \
        -e "s|@ARCHITECTURE@|$architecture|g" -e "s|@TENSORFLOW@|$tensorflow|g" \
        -e "s|@SIZE@|$(du -sk "$package/usr" | cut -f1)|g" \
        "packaging/debian/$(echo "$name" | sed "s/$soversion$//").control" >"$package/DEBIAN/control"
    (cd "$package" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$package/DEBIAN/md5sums"
    chmod -R go=rX "$package"
    SOURCE_DATE_EPOCH=$(packaging/date.sh) fakeroot dpkg-deb --root-owner-group --build "$package" "$out" >/dev/null
done
rm -rf "$tree" "$runtime" "$development" "$out/debian" "$out/changelog"
ls -1 "$out"/*.deb
