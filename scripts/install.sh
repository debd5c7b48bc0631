#!/bin/sh
# Lays the library out as a C library is expected to be found. The tree can be moved.
#
#     install.sh BUILT_DIR DESTDIR PREFIX VERSION SOVERSION
set -eu
built=$1 root=$2$3 prefix=$3 version=$4 soversion=$5
source=$(cd "$(dirname "$0")/.." && pwd)
pkg_config=${PKG_CONFIG:-pkg-config}
case $prefix in
/*) ;;
*) echo "error: PREFIX must be absolute, not $prefix" >&2; exit 1 ;;
esac

tensorflow_libdir=$("$pkg_config" --variable=libdir tensorflow)
tensorflow_includedir=$("$pkg_config" --variable=includedir tensorflow)
tensorflow_version=$("$pkg_config" --modversion tensorflow)
# TensorFlow's C++ classes have their layout by these.
tensorflow_defines=$("$pkg_config" --cflags-only-other tensorflow | tr ' ' '\n' | grep '^-D' | tr '\n' ' ')
# The placeholder of scripts/pkg-config has neither: sudo, for one, drops PKG_CONFIG_PATH.
if [ -z "$tensorflow_libdir" ] || [ -z "$tensorflow_includedir" ]; then
    echo "error: pkg-config finds no libdir and includedir of TensorFlow: install with the same" \
        "PKG_CONFIG_PATH as you built with" >&2
    exit 1
fi

mkdir -p "$root/bin" "$root/lib/pkgconfig" "$root/lib/cmake/SessionGroup" "$root/include"
install -m 755 "$built/libsession_group.so" "$root/lib/libsession_group.so.$version"
ln -sf "libsession_group.so.$version" "$root/lib/libsession_group.so.$soversion"
ln -sf "libsession_group.so.$soversion" "$root/lib/libsession_group.so"
install -m 644 "$built/libsession_group.a" "$root/lib/"
install -m 644 "$source/include/session_group.h" "$source"/include/*.hpp "$root/include/"

fill() {
    sed -e "s|@VERSION@|$version|g" -e "s|@TENSORFLOW_VERSION@|$tensorflow_version|g" \
        -e "s|@TENSORFLOW_MINOR@|$(echo "$tensorflow_version" | cut -d. -f1,2)|g" \
        -e "s|@TENSORFLOW_DEFINES@|$tensorflow_defines|g" "$source/scripts/$1" >"$2"
}
fill session_group.pc.in "$root/lib/pkgconfig/session_group.pc"
fill SessionGroupConfig.cmake.in "$root/lib/cmake/SessionGroup/SessionGroupConfig.cmake"
fill SessionGroupConfigVersion.cmake.in "$root/lib/cmake/SessionGroup/SessionGroupConfigVersion.cmake"
fill session-group-tensorflow.in "$root/bin/session-group-tensorflow"
chmod 755 "$root/bin/session-group-tensorflow"
"$root/bin/session-group-tensorflow" "$tensorflow_libdir" "$tensorflow_includedir" >/dev/null
echo "session_group $version installed in $root, built for TensorFlow $tensorflow_version"
