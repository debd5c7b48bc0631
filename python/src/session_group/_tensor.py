"""NumPy arrays to and from TF_Tensors."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._library import lib, memory
from ._tensorflow import tf

Array: TypeAlias = npt.NDArray[Any]

# From how many bytes on an array lies over the tensor's memory. Below, a copy is cheaper than what
# keeps the tensor.
SHARE_FROM = 16 * 1024

STRING = tf.string.as_datatype_enum
_STRING_SIZE = 24  # sizeof(TF_TString)


@cache
def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """NumPy's counterpart of a tensorflow.DataType; object for strings."""
    name = tf.as_dtype(dtype)
    try:
        found: np.dtype[Any] = np.dtype(name.as_numpy_dtype)
    except TypeError:
        found = np.dtype(object)
    # TensorFlow's own sessions give quantised types as plain ones.
    if found.fields:
        found = found[0]
    if found.hasobject and dtype != STRING:
        raise TypeError(f"a tensor of {name.name} has no counterpart in NumPy")
    return found


class Tensors:
    """TF_Tensors that are deleted together at the end of a `with`."""

    __slots__ = ("array",)

    def __init__(self, n: int) -> None:
        self.array = (ctypes.c_void_p * n)()

    def __enter__(self) -> "Tensors":
        return self

    def __exit__(self, *_: object) -> None:
        for tensor in self.array:
            if tensor is not None:
                lib.TF_DeleteTensor(tensor)

    def put(self, i: int, array: Array, dtype: int) -> None:
        """Copies the array to a new tensor, since TensorFlow may keep that for longer than a call."""
        if dtype == STRING:
            self._put_strings(i, array)
            return
        to = numpy_dtype(dtype)
        nbytes = array.size * to.itemsize
        self.array[i] = tensor = _allocate(array, dtype, nbytes)
        if nbytes:
            data = memory(lib.TF_TensorData(tensor), nbytes, writable=True)
            np.ndarray(array.shape, to, data)[...] = array

    def _put_strings(self, i: int, array: Array) -> None:
        strings = [s.encode() if isinstance(s, str) else bytes(s) for s in array.flat]
        tensor = _allocate(array, STRING, len(strings) * _STRING_SIZE)
        addresses = _addresses(tensor, len(strings))
        for at in addresses:
            lib.TF_StringInit(at)
        # Only now may it be deleted, should a signal end the loop below.
        self.array[i] = tensor
        for at, string in zip(addresses, strings):
            lib.TF_StringCopy(at, string, len(string))

    def take(self, i: int) -> Array:
        """An array with the tensor's contents, which can't be written to.

        Memory that is shared may be that of a variable, and whether it is shared depends on its size.
        """
        array = self._take(i)
        array.flags.writeable = False
        return array

    def _take(self, i: int) -> Array:
        tensor: int = self.array[i] or 0
        dtype = lib.TF_TensorType(tensor)
        shape = tuple([lib.TF_Dim(tensor, d) for d in range(lib.TF_NumDims(tensor))])
        nbytes = lib.TF_TensorByteSize(tensor)
        to = numpy_dtype(dtype)
        if not nbytes:
            return np.empty(shape, to)
        if dtype == STRING:
            return _strings(tensor, shape)
        data = lib.TF_TensorData(tensor)
        if nbytes >= SHARE_FROM and lib.TF_TensorMaybeMove(tensor):
            self.array[i] = None
            return np.asarray(_Memory(tensor, data, nbytes)).view(to).reshape(shape)
        return np.ndarray(shape, to, memory(data, nbytes)).copy()


def _allocate(array: Array, dtype: int, nbytes: int) -> int:
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor: int | None = lib.TF_AllocateTensor(dtype, dims, array.ndim, nbytes)
    if tensor is None:
        raise MemoryError(f"TensorFlow can't allocate a tensor of {nbytes} bytes")
    return tensor


def _addresses(tensor: int, n: int) -> Sequence[int]:
    data = lib.TF_TensorData(tensor) or 0
    return range(data, data + n * _STRING_SIZE, _STRING_SIZE)


def _strings(tensor: int, shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, object)
    array.flat[:] = [
        ctypes.string_at(lib.TF_StringGetDataPointer(at), lib.TF_StringGetSize(at))
        for at in _addresses(tensor, array.size)
    ]
    return array


class _Memory:
    """Owns a tensor for the array over its memory, which refers to this as its base."""

    def __init__(self, tensor: int, data: int, nbytes: int) -> None:
        self._tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (nbytes,),
            "data": (data, True),  # not to be written to
        }

    def __del__(self, delete: Callable[[int], None] = lib.TF_DeleteTensor) -> None:
        delete(self._tensor)
