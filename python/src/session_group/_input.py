"""What a caller passes for an input, checked against what the signature needs."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ._tensor import STRING, Array, numpy_dtype
from ._tensorflow import tf

# Kinds of numbers, each of which holds those before it.
_BOOL, _INTEGER, _FLOATING, _COMPLEX, _NO_NUMBER = range(5)
_KINDS = {"b": _BOOL, "i": _INTEGER, "u": _INTEGER, "f": _FLOATING, "c": _COMPLEX}
_TYPES: tuple[tuple[type, type], ...] = (
    (bool, np.bool_),
    (int, np.integer),
    (float, np.floating),
    (complex, np.complexfloating),
)


@dataclass(frozen=True)
class Input:
    """An input of a signature."""

    name: str
    where: str  # starts each message: "signature 'serving_default', input 'ids'"
    tensor: str  # "" where it is made of several tensors, as a sparse one is
    dtype: int
    dims: tuple[int | None, ...] | None

    def array(self, value: object) -> Array:
        """An array of the right shape, whose elements can be copied into the input's tensor."""
        array = typed_array(self.where, value, self.dtype)
        if self.dims is not None and not self._fits(array.shape):
            needs = (
                "[" + ", ".join("?" if d is None else str(d) for d in self.dims) + "]"
            )
            raise ValueError(
                f"{self.where}: got shape {list(array.shape)}, needs {needs}"
            )
        return array

    def _fits(self, shape: tuple[int, ...]) -> bool:
        dims = self.dims or ()
        return len(shape) == len(dims) and all(
            want is None or got == want for got, want in zip(shape, dims)
        )


def typed_array(where: str, value: object, dtype: int) -> Array:
    """An array whose elements can be copied into a tensor of a tensorflow.DataType.

    An array of that type is given back as it is. What is given for integers must fit; for floating-point
    numbers it is rounded to the nearest one, unless that is infinite. Kinds only widen: truth values,
    integers, floating-point numbers, complex ones.
    """
    if dtype == STRING:
        return _strings(where, value)
    to = numpy_dtype(dtype)
    if isinstance(value, np.ndarray) and value.dtype == to:
        return value
    array = _as_array(where, value, None)
    if array.dtype.fields and array.dtype == tf.as_dtype(dtype).as_numpy_dtype:
        return array.view(to)
    if not array.size or np.can_cast(array.dtype, to, "safe"):
        return array
    need, have = _kind(to), _array_kind(array)
    if need == _INTEGER and have == _FLOATING and not hasattr(value, "__array__"):
        # NumPy makes floating-point numbers of integers that no integer type of its own holds together.
        array = _as_array(where, value, object)
        have = _array_kind(array)
    if have > need or need == _BOOL != have:
        raise _wrong_type(where, _type_name(array), dtype)
    if need == _INTEGER:
        _check_range(where, array, to)
    return _floating(where, array, to) if need > _INTEGER else array


def _check_range(where: str, array: Array, to: np.dtype[Any]) -> None:
    low, high, (least, most) = int(array.min()), int(array.max()), _range(to)
    if low < least or high > most:
        raise _out_of_range(where, low if low < least else high, to)


@cache
def _range(integers: np.dtype[Any]) -> tuple[int, int]:
    limits = tf.as_dtype(integers)
    return int(limits.min), int(limits.max)


def _floating(where: str, array: Array, to: np.dtype[Any]) -> Array:
    if array.dtype.hasobject:
        try:
            array = array.astype(np.result_type(to, np.float64))
        except OverflowError:
            raise _out_of_range(where, max(array.flat, key=abs), to) from None
    with np.errstate(all="ignore"):
        cast = array.astype(to)
    if not np.isfinite(cast).all():
        became_infinite = np.isfinite(array) & ~np.isfinite(cast)
        if became_infinite.any():
            raise _out_of_range(where, array[became_infinite].flat[0], to)
    return cast


def _kind(dtype: np.dtype[Any]) -> int:
    if dtype.kind in _KINDS:
        return _KINDS[dtype.kind]
    try:
        # For NumPy, types as bfloat16 are of no kind.
        own = tf.as_dtype(dtype)
    except TypeError:
        return _NO_NUMBER
    return _FLOATING if own.is_floating else _INTEGER if own.is_integer else _NO_NUMBER


def _array_kind(array: Array) -> int:
    if array.dtype.hasobject:
        return max(map(_type_kind, set(map(type, array.flat))))
    return _kind(array.dtype)


def _type_kind(element: type) -> int:
    return next(
        (kind for kind, types in enumerate(_TYPES) if issubclass(element, types)),
        _NO_NUMBER,
    )


def _type_name(array: Array) -> str:
    """Of all elements, or of one that is the reason that the array doesn't fit."""
    if array.dtype.hasobject:
        return max(set(map(type, array.flat)), key=_type_kind).__name__
    return {"U": "str", "S": "bytes"}.get(array.dtype.kind, str(array.dtype))


def _strings(where: str, value: object) -> Array:
    # As objects, since NumPy's own strings of bytes lose zero bytes at their ends.
    array = _as_array(where, value, object)
    for element in array.flat:
        if not isinstance(element, (bytes, str)):
            raise _wrong_type(where, type(element).__name__, STRING)
    return array


def _as_array(where: str, value: object, dtype: type[object] | None) -> Array:
    try:
        return np.asarray(value, dtype)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"{where}: {error}") from error
    except Exception as error:
        raise TypeError(f"{where}: {error}") from error


def _wrong_type(where: str, got: str, dtype: int) -> TypeError:
    name = tf.as_dtype(dtype).name
    needs = "string: bytes or str" if dtype == STRING else name
    return TypeError(f"{where}: got {got}, needs {needs}")


def _out_of_range(where: str, value: object, to: np.dtype[Any]) -> ValueError:
    return ValueError(f"{where}: {value} is out of range for {to}")


def untyped_array(where: str, value: object) -> tuple[Array, int]:
    """An array for a tensor whose type isn't known here, and its tensorflow.DataType.

    Python's own values become what `tf.constant` makes of them.
    """
    try:
        if not hasattr(value, "__array__"):
            value = tf.make_ndarray(tf.make_tensor_proto(value))
        array = np.asarray(value)
        if array.dtype.kind in "SUT":
            array = array.astype(object)
        dtype = tf.as_dtype(array.dtype).as_datatype_enum
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error
    if dtype == STRING:
        for element in array.flat:
            if not isinstance(element, (bytes, str)):
                raise TypeError(
                    f"{where}: got an object array with a {type(element).__name__}, needs bytes or str"
                )
    return array, dtype
