#!/bin/sh
# Installs the packages in OUT in a minimal Debian, tells them where TensorFlow is, and serves models there: with a
# program that was compiled against them, as a service under systemd, and with the processor. As root.
#
#     deb-test.sh OUT MODELS
set -eu
cd "$(dirname "$0")/.."
out=$1 models=$2 root=$PWD/target/deb-root
pkg_config=${PKG_CONFIG:-pkg-config}

echo "Making a minimal Debian"
without_proc() { if mountpoint -q "$root/proc"; then umount "$root/proc"; fi; }
trap without_proc EXIT
without_proc
rm -rf "$root"
packaging/debian-root.sh apt "$root" systemd-sysv man-db curl

echo "Installing"
cp "$out"/*.deb "$root/tmp/"
chroot "$root" sh -c 'dpkg -i /tmp/*.deb' | tee "$root/tmp/installed"
grep -q '^session-group-server: not started: there is no TensorFlow' "$root/tmp/installed"
chroot "$root" ldconfig -p | grep -q 'libsession_group.so.0 '
if chroot "$root" session-group-tensorflow /opt/tensorflow 2>/dev/null; then
    echo "error: session-group-tensorflow finds a TensorFlow where there is none" >&2
    exit 1
fi

echo "Serving a model there"
libdir=$("$pkg_config" --variable=libdir tensorflow)
mkdir -p "$root/opt/tensorflow"
for name in cc framework; do
    file=$(readlink -f "$libdir/libtensorflow_$name.so.2")
    # Hundreds of megabytes, so not copied where that can be helped.
    ln -f "$file" "$root/opt/tensorflow/libtensorflow_$name.so.2" 2>/dev/null ||
        cp "$file" "$root/opt/tensorflow/libtensorflow_$name.so.2"
done
# Headers are needed here, where the program is compiled, against the packages' own files.
ln -sfn "$("$pkg_config" --variable=includedir tensorflow)" "$root/opt/tensorflow/include"
chroot "$root" session-group-tensorflow /opt/tensorflow
flags=$(PKG_CONFIG_LIBDIR=$root/usr/lib/pkgconfig pkg-config --cflags --libs session_group |
    sed -e "s|-I[^ ]*session_group/tensorflow/include|-I$root/opt/tensorflow/include|" \
        -e 's|-Wl,-rpath,[^ ]*||g' -e 's|-l\(tensorflow_[a-z]*\)|-l:lib\1.so.2|g')
# shellcheck disable=SC2086 # A list of words.
gcc -std=c11 c_tests/example.c -o "$root/tmp/example" \
    -Wl,-rpath,/usr/lib/session_group/tensorflow -Wl,-rpath-link,"$root/opt/tensorflow" \
    $flags -L"$root/opt/tensorflow"
cp -r "$models/strings" "$root/tmp/"
# Without /proc, TensorFlow ends the process.
mount -t proc proc "$root/proc"
chroot "$root" env TF_CPP_MIN_LOG_LEVEL=2 /tmp/example /tmp/strings | grep '^4 different words$'

echo "Loading the processor there"
gcc -std=c11 crates/processor/c_tests/example.c -o "$root/tmp/processor" -I"$root/usr/include" \
    -Wl,-rpath-link,"$root/opt/tensorflow" -L"$root/usr/lib" -lserving_processor
cp -r "$models/half_plus" "$root/tmp/"
chroot "$root" env TF_CPP_MIN_LOG_LEVEL=2 /tmp/processor /tmp/half_plus | grep '^a PredictResponse of'
without_proc

echo "Serving there under systemd"
packaging/deb-service-test.sh "$root" "$models"

echo "Removing"
chroot "$root" dpkg --purge libsession-group-dev libsession-group-processor session-group-server libsession-group0
if [ -n "$(find "$root/usr" "$root/etc" "$root/var/lib" -name '*session_group*' -o -name '*session-group*')" ]; then
    echo "error: something stayed after purging" >&2
    exit 1
fi
rm -rf "$root"
