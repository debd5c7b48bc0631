#!/bin/sh
# Packs a folder into parts that are put together elsewhere, without network or compiler.
#
#     pack.sh FOLDER OUT          writes OUT/NAME.part.00, .01, ... and OUT/NAME.sh, where NAME is FOLDER's name
#
# OUT/NAME.sh unpacks the parts beside it and runs FOLDER/run.sh with its arguments. It carries zstd and the
# libraries that zstd needs, since a bare machine has none.
set -eu
folder=$1 out=$2
name=$(basename "$folder")
# Below 60 MiB, which is as much as some ways to a machine take at a time.
part=58m

command -v zstd >/dev/null || packaging/need.sh zstd
rm -rf "$out/$name.sh" "$out/$name".part.*
mkdir -p "$out"
# A window of 512 MB finds the tables of a model that are in its SavedModel and in its ONNX weights.
tar --create --directory="$(dirname "$folder")" --owner=0 --group=0 "$name" |
    zstd -T0 "-${LEVEL:-12}" --long=29 --quiet |
    split --bytes=$part --numeric-suffixes --suffix-length=2 - "$out/$name.part."

unpacker=$(mktemp -d)
trap 'rm -rf "$unpacker"' EXIT
cp "$(command -v zstd)" "$unpacker/zstd"
ldd "$unpacker/zstd" | awk '$3 ~ /^\// { print $3 }' | grep -Ev '/lib(c|m|pthread|dl|rt)\.so' |
    xargs --no-run-if-empty cp --dereference --target-directory="$unpacker"

{
    cat <<EOF
#!/bin/sh
# Unpacks $name from the parts beside this file into the folder \$KIT (default: beside it) and runs it:
#     $name.sh [ARGUMENT ...]
set -eu
name=$name parts=$(find "$out" -name "$name.part.*" | wc -l) sum=$(cat "$out/$name".part.* | sha256sum | cut -c1-64)
EOF
    cat <<'EOF'
here=$(cd "$(dirname "$0")" && pwd)
kit=${KIT:-$here}
if [ ! -e "$kit/$name/unpacked" ]; then
    found=$(find "$here" -maxdepth 1 -name "$name.part.*" | wc -l)
    [ "$found" = "$parts" ] || { echo "error: $found of $parts parts are in $here" >&2; exit 1; }
    if [ "$(cat "$here/$name".part.* | sha256sum | cut -c1-64)" != "$sum" ]; then
        echo "error: the parts in $here are damaged, or of different kits: copy them again" >&2
        exit 1
    fi
    mkdir -p "$kit/unpacker"
    sed '1,/^#unpacker$/d' "$0" | base64 -d | gzip -d | tar --extract --directory="$kit/unpacker"
    cat "$here/$name".part.* |
        LD_LIBRARY_PATH="$kit/unpacker" "$kit/unpacker/zstd" -d --long=29 --quiet |
        tar --extract --directory="$kit" --no-same-owner
    touch "$kit/$name/unpacked"
fi
exec "$kit/$name/run.sh" "$@"
#unpacker
EOF
    tar --create --directory="$unpacker" . | gzip -9 | base64
} >"$out/$name.sh"
chmod +x "$out/$name.sh"
ls -lh "$out/$name".* | awk '{ print $5, $9 }'
