"""What a caller passes for an input, checked against what the signature needs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._tensor import STRING, Array, numpy_dtype
from ._tensorflow import tf

# Which kinds of NumPy types Python's own numbers may come as.
_KINDS = (
    ("is_bool", "b"),
    ("is_integer", "biu"),
    ("is_floating", "biuf"),
    ("is_complex", "biufc"),
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
        array = self._strings(value) if self.dtype == STRING else self._numbers(value)
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

    def _numbers(self, value: object) -> Array:
        to = numpy_dtype(self.dtype)
        if isinstance(value, np.ndarray) and value.dtype == to:
            return value
        array = self._as_array(value, None)
        if array.dtype.fields and array.dtype == tf.as_dtype(self.dtype).as_numpy_dtype:
            return array.view(to)
        # What has a type of its own must be of a type that loses nothing. Python's numbers, and
        # NumPy's scalars, have one only for want of another.
        if hasattr(value, "__array__") and not isinstance(value, np.generic):
            if not np.can_cast(array.dtype, to, "safe"):
                raise self._wrong_type(array.dtype)
            return array
        if array.size and not self._may_come_as(array.dtype):
            raise self._wrong_type(array.dtype)
        cast = array.astype(to)
        if tf.as_dtype(self.dtype).is_integer and not np.array_equal(cast, array):
            wrong = array[cast != array].flat[0]
            raise ValueError(f"{self.where}: {wrong} is out of range for {to}")
        return cast

    def _may_come_as(self, dtype: np.dtype[Any]) -> bool:
        to = tf.as_dtype(self.dtype)
        return dtype == numpy_dtype(self.dtype) or any(
            getattr(to, is_kind) and dtype.kind in kinds for is_kind, kinds in _KINDS
        )

    def _strings(self, value: object) -> Array:
        # As objects, since NumPy's own strings of bytes lose zero bytes at their ends.
        array = self._as_array(value, object)
        for element in array.flat:
            if not isinstance(element, (bytes, str)):
                raise self._wrong_type(type(element).__name__)
        return array

    def _as_array(self, value: object, dtype: type[object] | None) -> Array:
        try:
            return np.asarray(value, dtype)
        except ValueError as error:  # lists of different lengths
            raise ValueError(f"{self.where}: {error}") from error
        except Exception as error:
            raise TypeError(f"{self.where}: {error}") from error

    def _wrong_type(self, got: object) -> TypeError:
        name = tf.as_dtype(self.dtype).name
        needs = "string: bytes or str" if self.dtype == STRING else name
        return TypeError(f"{self.where}: got {got}, needs {needs}")


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
