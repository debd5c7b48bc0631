"""Every type and shape there and back."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import session_group
import tensorflow as tf
from stock import MODELS, Stock, assert_same

SHAPES: list[tuple[int, ...]] = [(), (1,), (0,), (3, 0, 2), (2, 3), (100, 1000)]


@pytest.fixture(scope="module")
def model() -> Iterator[session_group.Model]:
    with session_group.load(MODELS / "every_type", 2) as model:
        yield model


@pytest.fixture(scope="module")
def stock() -> Iterator[Stock]:
    with Stock(MODELS / "every_type") as stock:
        yield stock


def some(dtype: Any, shape: tuple[int, ...]) -> Any:
    if dtype is object:
        n = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        words = np.vectorize(lambda i: b"\0x" * (i % 40), otypes=[object])
        return np.asarray(words(n) if n.size else n, object)
    rng = np.random.default_rng(len(shape))
    return rng.integers(0, 2, shape).astype(dtype)


with session_group.load(MODELS / "every_type", 1) as every_type:
    NAMES = [name for name in every_type.signatures if name not in ("both", "sparse")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_types(
    model: session_group.Model, stock: Stock, name: str, shape: tuple[int, ...]
) -> None:
    signature = model.signatures[name]
    assert signature.inputs["x"] == tf.TensorSpec(None, tf.as_dtype(name), "x")
    x = some(tf.as_dtype(name).as_numpy_dtype, shape)
    want = stock.call(name, x=x)
    assert_same(signature(x=x), want)
    assert_same(model.run({f"{name}/x:0": x}, [f"{name}/y:0"]), [want["y"]])


def test_views(model: session_group.Model) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (
        x.T,
        x[::2, ::-1],
        x[:, 1],
        x.astype(">f4"),
        np.broadcast_to(x, (3, 4, 6)),
    ):
        y = model.signatures["float32"](x=view)["y"]
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, view)


@pytest.mark.parametrize("n", [1, 100_000])
def test_outputs_stay_and_are_read_only(model: session_group.Model, n: int) -> None:
    signature = model.signatures["float32"]
    outputs = [signature(x=np.full(n, i, np.float32))["y"] for i in range(20)]
    parts = [y[: n // 2 + 1] for y in outputs]
    del outputs
    gc.collect()
    signature(x=np.full(n, -1, np.float32))
    for i, part in enumerate(parts):
        assert (part == i).all()
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0


def test_outputs_outlive_the_model() -> None:
    with session_group.load(MODELS / "every_type", 1) as model:
        large = model.signatures["int64"](x=range(10_000))["y"]
    del model
    gc.collect()
    assert large.tolist() == list(range(10_000))


def test_no_write_reaches_a_variable() -> None:
    with session_group.load(MODELS / "state", 2) as model:
        read, touch = model.signatures["read"], model.signatures["touch"]
        for _ in range(5):
            answer = read()
            touch()
            for name in ("x", "rows"):
                with pytest.raises(ValueError, match="read-only"):
                    answer[name][:] = 7
        assert (read()["x"] == 0).all()


def test_an_output_named_twice(model: session_group.Model) -> None:
    answer = model.signatures["both"](x=[1.0, 2.0])
    assert answer["y"].tolist() == answer["z"].tolist() == [1, 2]


def test_memory_is_given_back(model: session_group.Model) -> None:
    """Of inputs, strings, outputs and errors: a megabyte each, some hundred times."""
    number, string = model.signatures["int8"], model.signatures["string"]
    large, text = np.zeros(2**20, np.int8), ["x" * 2**20]

    def round_() -> None:
        for _ in range(100):
            number(x=large)
            string(x=text)
            model.run({"string/x:0": text, "int8/x:0": large}, ["int8/y:0"])
            with pytest.raises(tf.errors.OpError):
                model.run({"string/x:0": text, "int8/x:0": large}, ["nothing:0"])

    round_()
    before = resident_mb()
    round_()
    assert resident_mb() - before < 50


def resident_mb() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4 // 1024
