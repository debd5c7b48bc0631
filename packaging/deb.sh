#!/bin/sh
# Builds the Debian packages of what is built, the library, the model server and the processor, into OUT.
#
#     deb.sh OUT VERSION SOVERSION
set -eu
cd "$(dirname "$0")/.."
out=$PWD/$1 version=$2 soversion=$3
architecture=$(dpkg --print-architecture)
tensorflow=$("${PKG_CONFIG:-pkg-config}" --modversion tensorflow | cut -d. -f1,2)
tensorflow_libdir=$("${PKG_CONFIG:-pkg-config}" --variable=libdir tensorflow)
for tool in dpkg-shlibdeps:dpkg-dev fakeroot:fakeroot; do
    command -v "${tool%:*}" >/dev/null || packaging/need.sh "${tool#*:}"
done

tree=$out/tree
rm -rf "$out"
mkdir -p "$out/debian"
: >"$out/debian/control" # What dpkg-shlibdeps looks for.
packaging/stage.sh "$tree" /usr "$version" "$soversion"

cat >"$out/changelog" <<END
session-group ($version) unstable; urgency=medium

  * CHANGELOG.md tells what is new.

 -- SessionGroup developers <maintainers@session-group.invalid>  $(date -Rud "@$(packaging/date.sh)")
END

# take PACKAGE FILE...: moves files of the tree into a package.
take() {
    package=$1
    shift
    for file; do
        mkdir -p "$(dirname "$out/$package/$file")"
        mv "$tree/$file" "$out/$package/$file"
    done
}

# own PACKAGE MODE FILE TO: a file that only the package has.
own() {
    install -D -m "$2" "packaging/debian/$3" "$out/$1/$4"
}

# What Debian's packages have to have for a binary. TensorFlow's libraries are no Debian package.
depends() {
    (cd "$out" && dpkg-shlibdeps --ignore-missing-info -O -l"$tensorflow_libdir" "$1" 2>/dev/null) |
        sed 's/^shlibs:Depends=//'
}

# finish PACKAGE [BINARY]: builds a package whose files are there.
finish() {
    package=$out/$1 description=packaging/debian/$(echo "$1" | sed "s/$soversion$//")
    own "$1" 644 copyright "usr/share/doc/$1/copyright"
    gzip -9nc "$out/changelog" >"$package/usr/share/doc/$1/changelog.gz"
    mkdir -p "$package/DEBIAN"
    for script in postinst prerm postrm; do
        [ ! -e "$description.$script" ] || install -m 755 "$description.$script" "$package/DEBIAN/$script"
    done
    sed -e "s|@VERSION@|$version|g" -e "s|@SOVERSION@|$soversion|g" -e "s|@ARCHITECTURE@|$architecture|g" \
        -e "s|@DEPENDS@|${2:+$(depends "$package/$2")}|g" -e "s|@TENSORFLOW@|$tensorflow|g" \
        -e "s|@SIZE@|$(du -sk "$package/usr" | cut -f1)|g" "$description.control" >"$package/DEBIAN/control"
    (cd "$package" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$package/DEBIAN/md5sums"
    chmod -R go=rX "$package"
    SOURCE_DATE_EPOCH=$(packaging/date.sh) fakeroot dpkg-deb --root-owner-group --build "$package" "$out" >/dev/null
    rm -rf "$package"
}

library=libsession-group$soversion
take "$library" "usr/lib/libsession_group.so.$version" "usr/lib/libsession_group.so.$soversion"
chmod 644 "$out/$library/usr/lib/libsession_group.so.$version"
mkdir "$tree/usr/sbin"
mv "$tree/usr/bin/session-group-tensorflow" "$tree/usr/sbin/"
take "$library" usr/sbin/session-group-tensorflow
mkdir "$out/$library/DEBIAN"
echo "libsession_group $soversion libsession-group$soversion (>= $version)" >"$out/$library/DEBIAN/shlibs"
echo "activate-noawait ldconfig" >"$out/$library/DEBIAN/triggers"
finish "$library" "usr/lib/libsession_group.so.$version"

server=session-group-server
take "$server" usr/bin/session_group_model_server usr/share/man/man1/session_group_model_server.1
gzip -9n "$out/$server/usr/share/man/man1/session_group_model_server.1"
own "$server" 644 "$server.service" "usr/lib/systemd/system/$server.service"
own "$server" 755 "$server.can-serve" "usr/lib/$server/can-serve"
own "$server" 644 "$server.default" "etc/default/$server"
own "$server" 644 "$server.models.config" etc/session-group/models.config
mkdir "$out/$server/DEBIAN"
printf '%s\n' "/etc/default/$server" /etc/session-group/models.config >"$out/$server/DEBIAN/conffiles"
finish "$server" usr/bin/session_group_model_server

processor=libsession-group-processor
take "$processor" usr/lib/libserving_processor.so usr/include/serving_processor.h usr/share/session_group/predict.proto
chmod 644 "$out/$processor/usr/lib/libserving_processor.so"
finish "$processor" usr/lib/libserving_processor.so

find "$tree" -type d -empty -delete
take libsession-group-dev usr
finish libsession-group-dev

rm -rf "$tree" "$out/debian" "$out/changelog"
ls -1 "$out"/*.deb
