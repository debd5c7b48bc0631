"""Operations on shapes, which programs do without their kernels, give what kernels give; so do wrong ones."""

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
from both import both

tf1 = tf.compat.v1

VECTORS: list[Any] = [
    [],
    [7],
    [3, -1, 2],
    list(range(32)),
    list(range(40)),
    5,
    [[1, 2], [3, 4]],
]
PLACES: list[Any] = [0, 1, -1, 2, 3, -3, 31, 32, 99, -99]

raw = tf.raw_ops


def strided(**masks: int) -> Callable[..., Any]:
    def build(x: Any, a: Any, b: Any) -> Any:
        one = tf.ones_like(a)[None]
        return raw.StridedSlice(
            input=x, begin=a[None], end=b[None], strides=one, **masks
        )

    return build


BINARY: dict[str, Callable[..., Any]] = {
    "element": strided(shrink_axis_mask=1),
    "part": strided(),
    "beginning": strided(begin_mask=1),
    "end": strided(end_mask=1),
    "all": strided(begin_mask=1, end_mask=1, shrink_axis_mask=1),
    "slice": lambda x, a, b: raw.Slice(input=x, begin=a[None], size=b[None]),
    "gather": lambda x, a, b: raw.GatherV2(params=x, indices=a, axis=0),
    "gather_two": lambda x, a, b: raw.GatherV2(params=x, indices=[a, b], axis=0),
    "gather_axis": lambda x, a, b: raw.GatherV2(params=x, indices=[a], axis=b),
    "pack": lambda x, a, b: raw.Pack(values=[a, b, a + b]),
    "reshape": lambda x, a, b: raw.Reshape(tensor=x, shape=[a, b]),
    "reshape_one": lambda x, a, b: raw.Reshape(tensor=x, shape=a[None]),
    "concat_axis": lambda x, a, b: raw.ConcatV2(values=[x, x], axis=a),
    "product_axis": lambda x, a, b: raw.Prod(input=x, axis=a),
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "shape": lambda x: raw.Shape(input=x, out_type=tf.int64),
    "shape_32": lambda x: raw.Shape(input=tf.cast(x, tf.float32)),
    "concat": lambda x: raw.ConcatV2(values=[x, [1], x], axis=0),
    "wide": lambda x: raw.Cast(x=x, DstT=tf.int64),
    "narrow": lambda x: raw.Cast(x=x * 2**20, DstT=tf.int32),
    "product": lambda x: raw.Prod(input=x * 1000, axis=[0]),
    "kept_product": lambda x: raw.Prod(input=x, axis=[0], keep_dims=True),
    "flat": lambda x: raw.Reshape(tensor=x, shape=[-1]),
    "scalar": lambda x: raw.Reshape(tensor=x, shape=tf.constant([], tf.int32)),
    "pairs": lambda x: raw.Reshape(tensor=x, shape=[-1, 2]),
}


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.float32])
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_answers_and_errors(name: str, dtype: tf.DType) -> None:
    def build() -> None:
        x = tf1.placeholder(dtype, None, "x")
        a = tf1.placeholder(tf.int32, [], "a")
        b = tf1.placeholder(tf.int32, [], "b")
        # Constants must have the type of what is fed.
        if name == "concat":
            y = raw.ConcatV2(values=[x, tf.cast([1], dtype), x], axis=0)
        else:
            y = UNARY[name](x) if name in UNARY else BINARY[name](x, a, b)
        # What shares memory with its input stays what it is.
        tf.stack([tf.reduce_sum(y), tf.reduce_sum(y + y)], name="sums")
        tf.identity(y, "y")

    with both(build) as pair:
        for vector in VECTORS:
            for a, b in (
                zip(PLACES, PLACES[3:] + PLACES[:3]) if name in BINARY else [(0, 0)]
            ):
                feeds = {"x:0": vector, "a:0": a, "b:0": b}
                pair.run("y:0", feeds if name in BINARY else {"x:0": vector})
                pair.run(["y:0", "sums:0"], feeds)
        assert pair.runs_as("y:0") == "program"
