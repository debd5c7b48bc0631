"""The signatures in a serialised MetaGraphDef.

Its graph has the constants of a frozen model, which may be most of the process's memory. So the bytes
are neither copied nor parsed but for those of the signatures.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ._tensorflow import tf

_MetaGraphDef = tf.compat.v1.MetaGraphDef
_SIGNATURE_DEF = _MetaGraphDef.DESCRIPTOR.fields_by_name["signature_def"].number


def signature_defs(meta_graph_def: memoryview) -> Mapping[str, Any]:
    """Name to SignatureDef."""
    wanted = [
        bytes(field)
        for number, field in _fields(meta_graph_def)
        if number == _SIGNATURE_DEF
    ]
    return _MetaGraphDef.FromString(b"".join(wanted)).signature_def  # type: ignore[no-any-return]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message, all of which have a length, as MetaGraphDef's: number, whole field."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        length, at = _varint(message, at)
        at += length
        yield tag >> 3, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in seven bits a byte, lowest first, and where what follows begins."""
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
