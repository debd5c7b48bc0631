#!/bin/sh
# Makes an OCI image of the model server from the Debian packages in DEBS and from Debian's own, TensorFlow's two
# libraries included, into the archive OUT. Nothing is pulled. As root.
#
#     image.sh DEBS OUT
set -eu
cd "$(dirname "$0")/.."
debs=$1 out=$2
work=$PWD/target/image
root=$work/root
{ command -v podman && command -v runc; } >/dev/null || packaging/need.sh podman runc

echo "Making a minimal Debian"
# What the packages need of Debian, but for what is always there.
packaging/debian-root.sh essential "$root" libstdc++6 libgcc-s1
cp "$debs"/libsession-group0_*.deb "$debs"/session-group-server_*.deb "$root/tmp/"
chroot "$root" sh -c 'dpkg -i /tmp/*.deb && rm /tmp/*.deb' >/dev/null
libdir=$("${PKG_CONFIG:-pkg-config}" --variable=libdir tensorflow)
mkdir -p "$root/usr/lib/session_group/tensorflow" "$root/models"
for name in cc framework; do
    cp -L "$libdir/libtensorflow_$name.so.2" "$root/usr/lib/session_group/tensorflow/"
done
install -m 755 crates/model-server/deploy/entrypoint "$root/usr/bin/session-group-server"
# Where KServe's runtime for TensorFlow starts its server.
ln -s session_group_model_server "$root/usr/bin/tensorflow_model_server"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/*.log "$root/etc/resolv.conf" "$root/etc/hostname"

echo "Making the image"
tag=session-group-server
podman build --quiet --isolation=chroot --timestamp "$(packaging/date.sh)" --tag "$tag" \
    --file crates/model-server/deploy/Containerfile "$work" >/dev/null
rm -f "$out"
podman save --quiet --format=oci-archive --output "$out" "$tag"
rm -rf "$work"
ls -1 "$out"
