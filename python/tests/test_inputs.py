"""What may be passed, and what is said where it may not."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests_of
import session_group
import tensorflow as tf
from session_group import _input
from stock import MODELS, assert_same


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
        ("int32", np.array([-(2**31), 2**31 - 1])),
        ("int32", np.array([1, 2], ">i8")),
        ("int8", np.array([127], np.uint64)),
        ("int32", np.array([1, True], object)),
        ("int32", np.array([])),
        ("int32", np.empty((0, 3))),
        ("uint8", [0, 255]),
        ("uint8", np.array([[0], [255]])),
        ("uint64", 2**64 - 1),
        ("uint64", [2**63, 1]),
        ("float32", np.array([1.5, np.inf, -np.inf])),
        ("float32", np.array([1.5, 2], np.longdouble)),
        ("float32", np.array([1.5, 2], ">f4")),
        ("float32", np.array([1.5, 2], object)),
        ("float32", np.array([[1, 2]])),
        ("float32", tf.constant([1.5], tf.float64)),
        ("float32", 2**70),
        ("float16", np.array([1.5, np.inf])),
        ("float16", [65504]),
        ("bfloat16", np.array([1.5, -np.inf])),
        ("float8_e5m2", np.array([1.5, np.inf])),
        ("complex64", np.array([1.5])),
        ("complex64", np.array([1 + 2j, np.inf])),
        ("qint8", np.array([-128, 127])),
        ("bool", [True, False]),
        ("bool", np.array([True, False], object)),
        ("complex64", [1, 2.5, 3j]),
        ("string", "ä"),
        ("string", b"\xff\0"),
        ("string", [["a", b"b"], ["c", "d\0"]]),
        ("string", []),
        ("string", np.array(["a", "bc"])),
        ("string", np.array([b"a", b"bc"])),
        ("string", np.array([["a"], [b"b"]], object)),
        ("string", np.array([])),
        ("string", tf.constant(["a", "b"])),
    ],
    ids=str,
)
def test_fits(types: session_group.Signatures, name: str, value: Any) -> None:
    y = types[name](x=value)["y"]
    assert y.dtype == {"string": object, "qint8": np.int8}.get(
        name, tf.as_dtype(name).as_numpy_dtype
    )
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
        ("int32", 1.5, TypeError, "input 'x': got float, needs int32"),
        ("int32", np.array([1], np.float32), TypeError, "got float32, needs int32"),
        ("int32", np.array([1.0]), TypeError, "got float64, needs int32"),
        ("int32", np.float64(1), TypeError, "got float64, needs int32"),
        ("int32", [2**31], ValueError, "2147483648 is out of range for int32"),
        ("int32", [2**70], ValueError, f"{2**70} is out of range for int32"),
        ("int32", np.array([[1], [2**31]]), ValueError, "2147483648 is out of range"),
        ("int32", np.array([1, -(2**40)]), ValueError, f"{-(2**40)} is out of range"),
        ("int64", np.array([2**63], np.uint64), ValueError, f"{2**63} is out of range"),
        ("int64", [2**63, -1], ValueError, f"{2**63} is out of range for int64"),
        ("uint8", [-1], ValueError, "-1 is out of range for uint8"),
        ("uint64", np.array([-1]), ValueError, "-1 is out of range for uint64"),
        ("qint8", [128], ValueError, "128 is out of range for int8"),
        ("int32", [1, 2.5], TypeError, "got float, needs int32"),
        ("int32", np.array([1, 2.5], object), TypeError, "got float, needs int32"),
        ("int32", np.array(["2026-11-28"], "M8[D]"), TypeError, "got datetime64[D], n"),
        ("int64", np.array([1], "m8[s]"), TypeError, "got timedelta64[s], needs int64"),
        ("float32", np.array([1, -1e39]), ValueError, "-1e+39 is out of range for flo"),
        ("float32", [np.nan, 1e39], ValueError, "1e+39 is out of range for float32"),
        ("float32", 10**400, ValueError, f"{10**400} is out of range for float32"),
        ("float16", np.array([70000]), ValueError, "70000 is out of range for float16"),
        ("bfloat16", np.array([1e39]), ValueError, "1e+39 is out of range for bfloat1"),
        ("float8_e4m3fn", [1e3], ValueError, "1000.0 is out of range for float8_e4m3"),
        ("complex64", [1j, 1e39], ValueError, "(1e+39+0j) is out of range for complex"),
        ("float32", np.array([1j]), TypeError, "got complex128, needs float32"),
        ("float32", "a", TypeError, "got str, needs float32"),
        ("float32", np.array([b"a"]), TypeError, "got bytes, needs float32"),
        ("float32", [1, "a"], TypeError, "got str, needs float32"),
        ("float32", None, TypeError, "got NoneType, needs float32"),
        ("float32", [1.5, None], TypeError, "got NoneType, needs float32"),
        ("float32", {"a": 1}, TypeError, "got dict, needs float32"),
        ("float32", [[1], [2, 3]], ValueError, "inhomogeneous"),
        ("bool", [1], TypeError, "got int64, needs bool"),
        ("bool", np.array([0, 1], np.uint8), TypeError, "got uint8, needs bool"),
        ("bool", np.array([True, 1], object), TypeError, "got int, needs bool"),
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


NUMBERS = [
    tf.as_dtype(name)
    for name in (
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"),
        *("uint64", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"),
        *("float32", "float64", "complex64", "complex128"),
    )
]


def kind(dtype: Any) -> int:
    """Which kinds hold which: bool, int, float, complex."""
    flags = (dtype.is_bool, dtype.is_integer, dtype.is_floating, dtype.is_complex)
    return flags.index(True)


@pytest.mark.parametrize("to", NUMBERS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("given", NUMBERS, ids=lambda dtype: dtype.name)
def test_arrays_become_what_tensorflow_makes_of_them(
    types: session_group.Signatures, given: Any, to: Any
) -> None:
    values = {
        0: [True, False],
        1: [0, 1, 100],
        2: [0.3, -1.1, 1e-9, np.inf, np.nan],
        3: [0.3 + 1e-9j, -1.1],
    }[kind(given)]
    array = np.array(values).astype(given.as_numpy_dtype)
    if kind(given) > kind(to) or (to == tf.bool and given != tf.bool):
        with pytest.raises(TypeError, match=f"got {given.name}, needs {to.name}"):
            types[to.name](x=array)
        return
    want = tf.constant(array, to).numpy()
    with_list = types[to.name](x=array.tolist())["y"]
    for y in (types[to.name](x=array)["y"], with_list):
        assert y.dtype == want.dtype
        # NumPy doesn't know the NaNs of types that aren't its own.
        np.testing.assert_array_equal(y.astype(complex), want.astype(complex))


def test_an_array_that_matches_is_not_copied(types: session_group.Signatures) -> None:
    x = np.ones(3, np.float32)
    assert _input.typed_array("x", x, tf.float32.as_datatype_enum) is x
    for narrower in (x.astype(np.float16), np.ones(3, bool)):
        array = _input.typed_array("x", narrower, tf.float32.as_datatype_enum)
        assert array is narrower  # Converted while it is copied to the tensor.


def test_run_converts_as_signatures_do() -> None:
    with session_group.load(MODELS / "every_type", 1) as model:
        for feed in ("float32/x", "float32/x:0"):
            [y] = model.run({feed: np.array([0.1, 2])}, ["float32/y:0"])
            assert_same(y, np.array([0.1, 2], np.float32))
        [y] = model.run({"float16/x": [1, 2.5]}, ["float16/y:0"])
        assert_same(y, np.array([1, 2.5], np.float16))
        with pytest.raises(ValueError, match="feed 'int8/x': 128 is out of range"):
            model.run({"int8/x": np.array([128])}, ["int8/y:0"])
        with pytest.raises(TypeError, match="feed 'int8/x:0': got float, needs int8"):
            model.run({"int8/x:0": 1.0}, ["int8/y:0"])
        # The parts of a sparse tensor.
        parts = {"indices": [[0], [2]], "values": np.array([1.5, 2]), "shape": [3]}
        x = {f"sparse/{part}:0": value for part, value in parts.items()}
        indices, values, shape = model.run(x, list(x))
        dtypes = [array.dtype.name for array in (indices, values, shape)]
        assert dtypes == ["int64", "float32", "int64"]


def test_warming_up_converts_as_signatures_do(
    wide_deep: session_group.Model,
) -> None:
    request = requests_of.wide_deep(2)
    want = wide_deep(**request)
    request["dense"] = request["dense"].astype(np.float64)
    request["ids"] = request["ids"].astype(object)
    wide_deep.warm_up(**request)
    assert_same(wide_deep(**request), want)
    request["dense"][0, 3] = 1e39
    for call in (wide_deep, wide_deep.warm_up):
        with pytest.raises(ValueError, match="input 'dense': 1e[+]39 is out of range"):
            call(**request)


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


def test_a_single_input_may_be_passed_by_position() -> None:
    with session_group.load(MODELS / "strings", 1) as model:
        signature = model.signatures["serving_default"]
        want = model(text=["a b"])
        signature.warm_up(["a b"])
        model.warm_up(["a b"])
        assert_same(signature(["a b"]), want)
        assert_same(model(["a b"]), want)


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        (1, {}, "input 'x': is all that may be passed by position, got 2"),
        (0, {"x": 1}, "input 'x': got it by position and by name"),
        (0, {"z": 1}, "has no input 'z'; it takes x: float32 of any shape"),
    ],
    ids=str,
)
def test_wrong_by_position(
    types: session_group.Signatures,
    positional: int,
    named: dict[str, Any],
    message: str,
) -> None:
    arguments = [1.0] * (1 + positional)
    for call in (types["float32"], types["float32"].warm_up):
        with pytest.raises(TypeError) as raised:
            call(*arguments, **named)
        assert str(raised.value).startswith("signature 'float32'")
        assert message in str(raised.value)


def test_a_dict_by_position(types: session_group.Signatures) -> None:
    with pytest.raises(
        TypeError, match=r"got a dict: pass inputs by name, as \(\*\*inputs\)"
    ):
        types["float32"]({"x": 1.0})


def test_several_inputs_by_position(wide_deep: session_group.Model) -> None:
    request = requests_of.wide_deep(1)
    ids = request.pop("ids")
    signature = wide_deep.signatures["serving_default"]
    for call in (wide_deep, wide_deep.warm_up, signature, signature.warm_up):
        for arguments, named in (([ids], request), ([ids, ids], {}), ([request], {})):
            with pytest.raises(TypeError) as raised:
                call(*arguments, **named)
            assert str(raised.value) == (
                "signature 'serving_default' has several inputs, and a SavedModel doesn't keep their "
                "order: pass them by name: (country=..., dense=..., ids=...)"
            )


def test_no_input_by_position() -> None:
    with session_group.load(MODELS / "state", 1) as model:
        with pytest.raises(TypeError, match="signature 'read' takes nothing"):
            model.signatures["read"](1)


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
    """For what is no input of a signature, Model.run() takes what tf.constant would make of Python's own
    values."""
    with session_group.load(MODELS / "every_type", 1) as model:
        for name, value in (("int32", [1]), ("float32", 1.5), ("string", ["ä", b"b"])):
            [y] = model.run({f"{name}/y": value}, [f"{name}/y:0"])
            assert y.dtype == (object if name == "string" else np.dtype(name))
        with pytest.raises(TypeError, match="feed 'string/y:0': got an object array"):
            model.run({"string/y:0": np.array([None])}, ["string/y:0"])
        with pytest.raises(TypeError, match=r"needs a sequence: \['a:0'\]"):
            model.run({}, "a:0")
        with pytest.raises(ValueError, match="session is -1"):
            model.run({}, [], session=-1)
