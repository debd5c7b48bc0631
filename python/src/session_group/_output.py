"""What a signature gives: the tensors behind an output, and what is made of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ._tensor import Array
from ._tensorflow import tf

_RAGGED = "RaggedTensorSpec"
_SPARSE = "SparseTensorSpec"


@dataclass(frozen=True)
class Output:
    """An output of a signature."""

    name: str
    kind: str  # "" where it is one tensor
    tensors: tuple[str, ...]
    spec: Any

    def value(self, arrays: Sequence[Array]) -> Any:
        """What `tf.compat.v1.Session.run` gives for it, of an array for each of its tensors."""
        if not self.kind:
            return arrays[0]
        if self.kind == _SPARSE:
            return tf.compat.v1.SparseTensorValue(*arrays)
        if self.kind == _RAGGED:
            # Flat values, then the row splits from the outermost dimension on.
            value, *splits = arrays
            for row_splits in reversed(splits):
                value = tf.compat.v1.ragged.RaggedTensorValue(value, row_splits)
            return value
        return tuple(arrays)


def output(name: str, info: Any) -> Output:
    """The output that a TensorInfo describes."""
    encoding = info.WhichOneof("encoding")
    if encoding == "coo_sparse":
        coo = info.coo_sparse
        return Output(
            name,
            _SPARSE,
            (
                coo.indices_tensor_name,
                coo.values_tensor_name,
                coo.dense_shape_tensor_name,
            ),
            tf.SparseTensorSpec(shape(info), info.dtype),
        )
    if encoding == "composite_tensor":
        components = info.composite_tensor.components
        tensors = tuple(component.name for component in components)
        kind, spec = _composite(info.composite_tensor)
        return Output(name, kind, tensors, spec)
    spec = tf.TensorSpec(shape(info), info.dtype, name)
    return Output(name, "", (info.name,), spec)


def tensor_types(info: Any) -> Iterator[tuple[str, int]]:
    """The tensors that a TensorInfo describes, with their tensorflow.DataTypes."""
    encoding = info.WhichOneof("encoding")
    if encoding == "name":
        yield info.name, info.dtype
    elif encoding == "coo_sparse":
        yield info.coo_sparse.values_tensor_name, info.dtype
        yield info.coo_sparse.indices_tensor_name, tf.int64.as_datatype_enum
        yield info.coo_sparse.dense_shape_tensor_name, tf.int64.as_datatype_enum
    elif encoding == "composite_tensor":
        for component in info.composite_tensor.components:
            yield from tensor_types(component)


def spec_of(name: str, info: Any) -> Any:
    """The tf.TypeSpec of what a TensorInfo describes."""
    return output(name, info).spec


def _composite(composite: Any) -> tuple[str, Any]:
    """Its kind and its spec, which for other kinds than these two is that of its components."""
    spec = composite.type_spec
    specs = tuple(tf.TensorSpec(shape(c), c.dtype) for c in composite.components)
    # The state of a spec is made of what its constructor takes.
    state = spec.type_state.tuple_value.values
    if spec.type_spec_class == spec.RAGGED_TENSOR_SPEC and len(specs) > 1:
        dims = tf.TensorShape(state[0].tensor_shape_value)
        splits = specs[1].dtype
        return _RAGGED, tf.RaggedTensorSpec(
            dims, specs[0].dtype, len(specs) - 1, splits
        )
    if spec.type_spec_class == spec.SPARSE_TENSOR_SPEC and len(specs) == 3:
        dims = tf.TensorShape(state[0].tensor_shape_value)
        return _SPARSE, tf.SparseTensorSpec(dims, specs[1].dtype)
    return spec.type_spec_class_name or "composite", specs


def shape(info: Any) -> Any:
    """A TensorInfo's shape, which is unknown where it has none."""
    known = info.HasField("tensor_shape")
    return tf.TensorShape(info.tensor_shape if known else None)


def described(spec: Any) -> str:
    """A spec, shortly: "string[?]"."""
    if isinstance(spec, tuple):
        return f"({', '.join(map(described, spec))})"
    kind = {tf.RaggedTensorSpec: "ragged ", tf.SparseTensorSpec: "sparse "}
    return f"{kind.get(type(spec), '')}{spec.dtype.name}{_dims(spec.shape)}"


def _dims(shape: Any) -> str:
    if shape.rank is None:
        return " of any shape"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
