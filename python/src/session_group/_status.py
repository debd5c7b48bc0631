"""Errors, texts and names across the C ABI."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from ._library import lib, memory
from ._tensorflow import tf


class Status:
    """A TF_Status for one call. Not one for each thread: a signal handler may call again."""

    __slots__ = ("handle",)

    def __init__(self) -> None:
        self.handle = lib.TF_NewStatus()

    def __del__(self, delete: Callable[[int], None] = lib.TF_DeleteStatus) -> None:
        delete(self.handle)

    def check(self) -> None:
        """Raises the exception of tensorflow.errors that the status stands for."""
        if code := lib.TF_GetCode(self.handle):
            message = lib.TF_Message(self.handle).decode(errors="replace")
            error = tf.compat.v1.errors.exception_type_from_error_code(code)
            raise error(None, None, message)


class _Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Buffer:
    """A TF_Buffer."""

    def __init__(self, data: bytes | None = None) -> None:
        self.handle = (
            lib.TF_NewBuffer()
            if data is None
            else lib.TF_NewBufferFromString(data, len(data))
        )

    def __del__(self, delete: Callable[[int], None] = lib.TF_DeleteBuffer) -> None:
        delete(self.handle)

    def view(self) -> memoryview:
        """Its bytes, as long as the buffer is there."""
        buffer = _Buffer.from_address(self.handle)
        return memory(buffer.data, buffer.length) if buffer.length else memoryview(b"")


def text(fill: Callable[..., None], *arguments: int) -> str:
    """What a function writes that takes a TF_Buffer and a TF_Status last."""
    status, buffer = Status(), Buffer()
    fill(*arguments, buffer.handle, status.handle)
    status.check()
    return bytes(buffer.view()).decode()


def c_string(string: str) -> bytes:
    """For a `const char*`, which would end at a zero byte."""
    if "\0" in string:
        raise ValueError(f"{string!r} has a zero character in it")
    return string.encode()


def c_strings(strings: Sequence[str]) -> "ctypes.Array[ctypes.c_char_p]":
    """For a `const char* const*`."""
    return (ctypes.c_char_p * len(strings))(*map(c_string, strings))


def c_int32(name: str, value: Any) -> int:
    """The value, where ctypes would drop its higher bits."""
    return _c_int(name, value, 32)


def c_int64(name: str, value: Any) -> int:
    """As `c_int32`."""
    return _c_int(name, value, 64)


def _c_int(name: str, value: Any, bits: int) -> int:
    number: int = value.__index__()
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise ValueError(f"{name} is {value}, which is no {bits}-bit number")
    return number
