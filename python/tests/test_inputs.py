"""What may be passed, and what is said where it may not."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests_of
import session_group
import tensorflow as tf
from stock import MODELS


@pytest.fixture(scope="module")
def types() -> Iterator[session_group.Signatures]:
    with session_group.load(MODELS / "every_type", 1) as model:
        yield model.signatures


@pytest.fixture(scope="module")
def wide_deep() -> Iterator[session_group.Model]:
    with session_group.load(MODELS / "wide_deep", 1) as model:
        yield model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("float32", 1),
        ("float32", 1.5),
        ("float32", True),
        ("float32", np.float64(1.5)),
        ("float32", [[1, 2.5], [3, 4]]),
        ("float32", []),
        ("float32", np.array([1, 2], np.float16)),
        ("float32", np.array([1, 2], np.int16)),
        ("float32", tf.constant([1.0, 2.0])),
        ("bfloat16", [1.5, 2]),
        ("float16", 1),
        ("float64", np.array([1, 2], np.float32)),
        ("int32", [1, 2]),
        ("int32", []),
        ("int32", (np.int64(3), 4)),
        ("int64", np.array([1, 2], np.int32)),
        ("int64", range(5)),
        ("uint8", [0, 255]),
        ("uint64", 2**64 - 1),
        ("bool", [True, False]),
        ("complex64", [1, 2.5, 3j]),
        ("string", "ä"),
        ("string", b"\xff\0"),
        ("string", [["a", b"b"], ["c", "d\0"]]),
        ("string", []),
        ("string", np.array(["a", "bc"])),
        ("string", np.array([b"a", b"bc"])),
        ("string", tf.constant(["a", "b"])),
    ],
    ids=str,
)
def test_fits(types: session_group.Signatures, name: str, value: Any) -> None:
    y = types[name](x=value)["y"]
    assert y.dtype == (object if name == "string" else tf.as_dtype(name).as_numpy_dtype)
    want = np.asarray(value, object if name == "string" else None)
    assert y.shape == want.shape
    if name == "string":
        want = np.asarray(
            [s.encode() if isinstance(s, str) else s for s in want.flat], object
        ).reshape(want.shape)
    assert y.tolist() == want.tolist()


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("int32", 1.5, TypeError, "input 'x': got float64, needs int32"),
        ("int32", np.array([1], np.float32), TypeError, "got float32, needs int32"),
        ("int32", np.array([1], np.int64), TypeError, "got int64, needs int32"),
        ("int32", [2**31], ValueError, "2147483648 is out of range for int32"),
        ("int32", [2**70], TypeError, "got object, needs int32"),
        ("uint8", [-1], ValueError, "-1 is out of range for uint8"),
        ("float32", np.array([1], np.float64), TypeError, "got float64, needs float32"),
        ("float32", "a", TypeError, "got <U1, needs float32"),
        ("float32", None, TypeError, "got object, needs float32"),
        ("float32", [[1], [2, 3]], ValueError, "inhomogeneous"),
        ("bool", [1], TypeError, "got int64, needs bool"),
        ("string", 1, TypeError, "got int, needs string: bytes or str"),
        ("string", ["a", None], TypeError, "got NoneType, needs string"),
        ("string", np.zeros(2), TypeError, "got float, needs string"),
        ("string", [["a"], ["b", "c"]], TypeError, "got list, needs string"),
    ],
    ids=str,
)
def test_does_not_fit(
    types: session_group.Signatures,
    name: str,
    value: Any,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error) as raised:
        types[name](x=value)
    assert message in str(raised.value)
    assert f"signature {name!r}, input 'x': " in str(raised.value)


@pytest.mark.parametrize("shape", [(1,), (1, 25), (1, 26, 1), ()], ids=str)
def test_shapes(wide_deep: session_group.Model, shape: tuple[int, ...]) -> None:
    request = requests_of.wide_deep(1) | {"ids": np.zeros(shape, np.int64)}
    with pytest.raises(ValueError) as raised:
        wide_deep(**request)
    assert str(raised.value) == (
        f"signature 'serving_default', input 'ids': got shape {list(shape)}, needs [?, 26]"
    )


def test_names(wide_deep: session_group.Model) -> None:
    request = requests_of.wide_deep(1)
    request["idz"] = request.pop("ids")
    with pytest.raises(TypeError) as raised:
        wide_deep(**request)
    assert str(raised.value) == (
        "signature 'serving_default' has no input 'idz' (did you mean 'ids'?), needs 'ids'; "
        "it takes country: string[?], dense: float32[?, 13], ids: int64[?, 26]"
    )


def test_names_of_signatures(types: session_group.Signatures) -> None:
    with pytest.raises(KeyError, match=r"no signature 'it8' \(did you mean 'int8'\?\)"):
        types["it8"]


def test_sparse_tensors(types: session_group.Signatures) -> None:
    with pytest.raises(NotImplementedError, match=r"'x' \(coo_sparse\)"):
        types["sparse"](x=[1.0])


def test_no_default_signature() -> None:
    with session_group.load(MODELS / "state", 1) as model:
        with pytest.raises(TypeError, match="'assign', 'read', 'touch'"):
            model()


def test_repr(wide_deep: session_group.Model) -> None:
    signature = (
        "<Signature 'serving_default': (country: string[?], dense: float32[?, 13], "
        "ids: int64[?, 26]) -> (score: float32[?])>"
    )
    assert repr(wide_deep.signatures["serving_default"]) == signature
    assert repr(wide_deep) == f"<Model of 1 sessions: [{signature}]>"
    assert wide_deep.signatures["serving_default"].outputs == {
        "score": tf.TensorSpec([None], tf.float32, "score")
    }


def test_untyped() -> None:
    """Model.run() takes what tf.constant would make of Python's own values."""
    with session_group.load(MODELS / "every_type", 1) as model:
        for name, value in (("int32", [1]), ("float32", 1.5), ("string", ["ä", b"b"])):
            [y] = model.run({f"{name}/x": value}, [f"{name}/y:0"])
            assert y.dtype == (object if name == "string" else np.dtype(name))
        with pytest.raises(TypeError, match="feed 'string/x:0': got an object array"):
            model.run({"string/x:0": np.array([None])}, ["string/y:0"])
        with pytest.raises(TypeError, match=r"needs a sequence: \['a:0'\]"):
            model.run({}, "a:0")
        with pytest.raises(ValueError, match="session is -1"):
            model.run({}, [], session=-1)
