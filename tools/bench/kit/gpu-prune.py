"""Drops GPU code that Hopper cards don't run from CUDA libraries, in place.

    python gpu-prune.py [--floats] LIBRARY ...

A library holds its GPU code once for each generation of cards, as machine code or as PTX, which the
driver would compile. What an H100 takes remains: machine code for sm_90 or, where there is none, PTX.
With --floats, what multiplies matrices of other types than float goes, too.

Nothing moves. What is dropped becomes zeros, which compress to nothing; the header of an entry stays and
says that it is for other cards, so that whoever asks for it gets CUDA's error for that. cuBLASLt has
more code beside that, in zstd's frames; these disappear as a whole.
"""

import argparse
import mmap
import pathlib
import re
import struct

import lz4.block
import zstandard

CONTAINER = struct.Struct(
    "<IHHQ"
)  # magic, version, size of this header, size of what follows
MAGIC = 0xBA55ED50
# kind, version, size of this header, size, compressed size, -, minor, major, card, 2 x name, flags, -,
# size when unpacked
ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
CARD = 28  # where in the entry's header the card is
PTX, CODE = 1, 2
COMPRESSED = 0x2000
HOPPER = 90
NO_CARD = {PTX: 999, CODE: 50}

FRAME = b"\x28\xb5\x2f\xfd"
ELF = b"\x7fELF"
ELF_FLAGS = (
    48  # where the card is in the header of an ELF file with GPU code: its lowest byte
)

KERNEL = re.compile(rb"\.text\.(\w+)")
# What multiplies matrices, and of these what takes floats.
PRODUCT = re.compile(rb"sm\d+_xmma_|.*cutlass_\d+_(tensorop|wmma)_")
FLOAT = re.compile(rb"sm\d+_xmma_.*_t?f32f32_|.*cutlass_\d+_tensorop_s1688(tf32)?gemm_")


class Entry:
    def __init__(self, data, at):
        self.at = at
        fields = ENTRY.unpack_from(data, at)
        self.kind, self.card, self.flags, self.unpacked = (
            fields[i] for i in (0, 8, 11, 13)
        )
        self.header, self.size, self.compressed = fields[2], fields[3], fields[4]
        self.end = at + self.header + self.size

    def kernels(self, data):
        start = self.at + self.header
        if self.flags & COMPRESSED:
            packed = data[start : start + self.compressed]
            code = lz4.block.decompress(packed, uncompressed_size=self.unpacked)
        else:
            code = data[start : self.end]
        return set(KERNEL.findall(code))

    def drop(self, data):
        start = self.at + self.header
        data[start : self.end] = bytes(self.size)
        if self.card == HOPPER:
            struct.pack_into("<I", data, self.at + CARD, NO_CARD[self.kind])


def containers(data):
    """The entries of each."""
    at = data.find(MAGIC.to_bytes(4, "little"))
    while at >= 0:
        _, version, header, size = CONTAINER.unpack_from(data, at)
        end = at + header + size
        # The magic number is in code that looks for it, too.
        if version == 1 and header == CONTAINER.size and end <= len(data):
            entries, at = [], at + header
            while at < end:
                entries.append(Entry(data, at))
                at = entries[-1].end
            yield entries
        else:
            at += 4
        at = data.find(MAGIC.to_bytes(4, "little"), at)


def prune(data, floats):
    """Gives the bytes of GPU code before and after."""
    before = after = 0
    for entries in containers(data):
        before += sum(entry.size for entry in entries)
        kept = [e for e in entries if (e.kind, e.card) == (CODE, HOPPER)]
        if floats and kept:
            if for_other_types(set().union(*(entry.kernels(data) for entry in kept))):
                kept = None
        if kept == []:
            kept = [entry for entry in entries if entry.kind == PTX]
        for entry in entries:
            if entry not in (kept or []):
                entry.drop(data)
        after += sum(entry.size for entry in kept or [])
    return before, after


def for_other_types(kernels):
    products = {name for name in kernels if PRODUCT.match(name)}
    return products and not any(FLOAT.match(name) for name in products)


def prune_frames(data, floats):
    """The same for code in zstd's frames."""
    before = after = 0
    at = data.find(FRAME)
    while at >= 0:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            code = frame.decompress(data[at : at + (4 << 20)])
        except zstandard.ZstdError:
            code = b""
        size = len(FRAME)
        if frame.eof and code.startswith(ELF):
            size = min(4 << 20, len(data) - at) - len(frame.unused_data)
            before += size
            other = floats and for_other_types(set(KERNEL.findall(code)))
            if other or code[ELF_FLAGS] != HOPPER:
                data[at : at + size] = bytes(size)
            else:
                after += size
        at = data.find(FRAME, at + size)
    return before, after


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--floats", action="store_true")
    parser.add_argument("libraries", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    for path in args.libraries:
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
            sizes = [prune(data, args.floats), prune_frames(data, args.floats)]
        before, after = (sum(size) / 1e6 for size in zip(*sizes))
        print(f"{path.name}: {before:.0f} MB of GPU code, {after:.0f} MB left")


main()
