"""Signatures in which inputs and outputs are not one tensor each, on models that are made here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import session_group
import tensorflow as tf
from stock import Stock, assert_same
from tensorflow.core.protobuf import saved_model_pb2

tf1 = tf.compat.v1

Infos = Mapping[str, Any]
Export = Callable[..., Path]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Exports the inputs and outputs that a function builds."""

    def made(
        build: Callable[[], tuple[Infos, Infos]], defaults: Infos | None = None
    ) -> Path:
        with tf.Graph().as_default(), tf1.Session() as session:
            inputs, outputs = (
                {name: tf1.saved_model.build_tensor_info(t) for name, t in each.items()}
                for each in build()
            )
            definition = tf1.saved_model.build_signature_def(
                inputs, outputs, "tensorflow/serving/predict"
            )
            for name, value in (defaults or {}).items():
                proto = tf.make_tensor_proto(value)
                definition.defaults[name].CopyFrom(proto)
            builder = tf1.saved_model.Builder(str(tmp_path / "model"))
            builder.add_meta_graph_and_variables(
                session, ["serve"], {"serving_default": definition}
            )
            builder.save()
        return tmp_path / "model"

    return made


def placeholder(name: str, shape: Any = None, dtype: tf.DType = tf.float32) -> Any:
    return tf1.placeholder(dtype, shape, name=name)


def edit(folder: Path, change: Callable[[Any], None]) -> None:
    """Changes the signature in an exported model."""
    path = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    change(saved_model.meta_graphs[0].signature_def["serving_default"])
    path.write_bytes(saved_model.SerializeToString())


def test_a_tensor_without_a_shape_may_have_any(export: Export) -> None:
    def build() -> tuple[Infos, Infos]:
        x = placeholder("x")
        return {"x": x}, {"y": x + 1}

    folder = export(build)

    def without_shapes(definition: Any) -> None:
        definition.inputs["x"].ClearField("tensor_shape")
        definition.outputs["y"].ClearField("tensor_shape")

    edit(folder, without_shapes)
    with session_group.load(folder, 1) as model:
        signature = model.signatures["serving_default"]
        assert signature.inputs["x"].shape.rank is None
        assert signature.outputs["y"].shape.rank is None
        assert "x: float32 of any shape" in repr(signature)
        for x in (1.0, [1.0, 2.0], [[1.0], [2.0]]):
            assert_same(model(x=x)["y"], np.asarray(x, np.float32) + 1)


def test_one_tensor_by_two_names(export: Export) -> None:
    def build() -> tuple[Infos, Infos]:
        x, text = placeholder("x", [None]), placeholder("text", [None], tf.string)
        return (
            {"x": x, "same": x, "text": text, "also": text},
            {"y": x * 2, "n": tf.size(text)},
        )

    with session_group.load(export(build), 2) as model:
        x = np.array([1.0, float("nan")], np.float32)
        model.warm_up(x=x, same=x, text=["a"], also=[b"a"])
        answer = model(x=x, same=x.copy(), text=["a"], also=[b"a"])
        assert_same(answer, {"n": np.array(1, np.int32), "y": x * 2})
        with pytest.raises(ValueError, match="same tensor as input 'same', 'x:0'"):
            model(x=[1.0], same=[2.0], text=["a"], also=["a"])
        with pytest.raises(ValueError, match="needs the same value"):
            model(x=[1.0], same=[1.0], text=["a"], also=["b"])
        with pytest.raises(TypeError, match="needs 'same'"):
            model(x=[1.0], text=["a"], also=["a"])


@pytest.mark.parametrize("all_fed", [False, True])
def test_an_output_that_is_an_input(export: Export, all_fed: bool) -> None:
    def build() -> tuple[Infos, Infos]:
        x, text = placeholder("x", [None]), placeholder("text", [None], tf.string)
        outputs = {"x": x, "words": text, "again": x}
        return {"x": x, "text": text}, outputs if all_fed else {**outputs, "y": x + 1}

    folder = export(build)
    inputs = {"x": np.array([1, 2], np.float32), "text": np.array([b"a"], object)}
    with Stock(folder) as stock, session_group.load(folder, 2) as model:
        model.warm_up(**inputs)
        answer = model(**inputs)
        assert_same(answer, stock.call("serving_default", **inputs))
        assert answer["x"] is not inputs["x"] and not answer["x"].flags.writeable
        # As of any tensor of this type.
        answer = model(x=np.array([3], np.float16), text=["ä"])
        assert_same(answer["x"], np.array([3], np.float32))
        assert answer["words"].tolist() == ["ä".encode()]


def test_fetching_what_is_fed(export: Export) -> None:
    def build() -> tuple[Infos, Infos]:
        x = placeholder("x", [None])
        z = tf.add(x, 1, name="z")
        return {"x": x}, {"y": tf.multiply(z, 2, name="y")}

    folder = export(build)
    x, z = np.array([1], np.float32), np.array([7], np.float32)
    with Stock(folder) as stock, session_group.load(folder, 1) as model:
        for feeds, fetches in (
            ({"x:0": x}, ["x:0", "y:0"]),
            ({"x:0": x}, ["y:0", "x:0", "x:0", "z:0", "y:0"]),
            ({"x:0": x}, ["x:0"]),
            ({"z:0": z}, ["z:0", "y:0"]),
            ({"x:0": x, "z:0": z}, ["y:0", "z:0", "x:0"]),
        ):
            assert_same(model.run(feeds, fetches), stock.session.run(fetches, feeds))
        assert_same(model.run({"x": x}, ["x:0", "z"]), [x, x + 1])
        [y] = model.run({"x": x, "x:0": x.copy()}, ["y:0"])
        assert_same(y, (x + 1) * 2)
        with pytest.raises(ValueError, match="'x' and 'x:0' are the same tensor"):
            model.run({"x": x, "x:0": z}, ["y:0"])


def test_outputs_of_several_tensors(export: Export) -> None:
    def build() -> tuple[Infos, Infos]:
        text = placeholder("text", [None], tf.string)
        words = tf.strings.split(text)
        # Lines of words of letters.
        nested = tf.RaggedTensor.from_row_lengths(
            tf.strings.bytes_split(words), [tf.size(text)]
        )
        rows = tf.IndexedSlices(tf.ones([2]), tf.constant([0, 3]))
        outputs = {
            "words": words,
            "letters": nested,
            "sparse": words.to_sparse(),
            "rows": rows,
            "n": tf.size(text),
        }
        return {"text": text}, outputs

    folder = export(build)
    text = ["a bc", "", "def"]
    with session_group.load(folder, 2) as model, Stock(folder) as stock:
        signature = model.signatures["serving_default"]
        definition = stock.meta_graph.signature_def["serving_default"]
        tensors = {
            name: tf1.saved_model.utils.get_tensor_from_tensor_info(info, stock.graph)
            for name, info in definition.outputs.items()
        }
        want = stock.session.run(tensors, {"text:0": text})
        model.warm_up(text=text)
        answer = model(text=text)
        assert answer.keys() == want.keys()
        assert_same(answer["n"], want["n"])
        assert type(answer["sparse"]) is type(want["sparse"])
        assert_same(list(answer["sparse"]), list(want["sparse"]))
        for name in ("words", "letters"):
            assert type(answer[name]) is type(want[name])
            assert answer[name].to_list() == want[name].to_list()
            assert answer[name].row_splits.dtype == want[name].row_splits.dtype
        # TensorFlow has no public type for them.
        assert_same(list(answer["rows"]), list(want["rows"][:2]))
        for name in ("words", "letters", "sparse"):
            spec, tensor = signature.outputs[name], tensors[name]
            assert type(spec) is type(tf.type_spec_from_value(tensor))
            assert spec.dtype == tf.string and spec.shape.rank == tensor.shape.rank
        assert "words: ragged string[?, ?]" in repr(signature)
        assert "sparse: sparse string[?, ?]" in repr(signature)
        assert "rows: (float32[2], int32[2])" in repr(signature)


def test_inputs_of_several_tensors_are_refused_when_they_are_used(
    export: Export,
) -> None:
    def build() -> tuple[Infos, Infos]:
        x = placeholder("x", [None])
        ragged = tf1.ragged.placeholder(tf.float32, 1, name="ragged")
        return {"x": x, "ragged": ragged}, {"y": x + tf.reduce_sum(ragged)}

    with session_group.load(export(build), 1) as model:
        assert "ragged: ragged float32 of any shape" in repr(model)
        for call in (model, model.warm_up):
            with pytest.raises(
                NotImplementedError, match=r"'ragged' \(composite_tensor\)"
            ):
                call(x=[1.0], ragged=[1.0])


def test_inputs_with_defaults_may_be_left_out(export: Export) -> None:
    def build() -> tuple[Infos, Infos]:
        x, k = placeholder("x", [None]), placeholder("k", [])
        suffix = placeholder("suffix", [None], tf.string)
        inputs = {"x": x, "k": k, "same": k, "suffix": suffix}
        return inputs, {"y": x * k, "k": k, "text": tf.strings.join([suffix, "!"])}

    defaults = {"k": np.float32(3), "same": np.float32(3), "suffix": [b"b", b"\xff"]}
    with session_group.load(export(build, defaults), 2) as model:
        model.warm_up(x=[1.0])
        answer = model(x=[1.0, 2.0])
        assert answer["y"].tolist() == [3, 6] and answer["k"] == 3
        assert answer["text"].tolist() == [b"b!", b"\xff!"]
        answer = model(x=[1.0], k=5, suffix=["c"])
        assert answer["y"].tolist() == [5] and answer["text"].tolist() == [b"c!"]
        assert model([1.0], k=5)["y"].tolist() == [5]
        with pytest.raises(
            TypeError, match=r"needs 'x'; it takes k: float32\[\] \(opt"
        ):
            model(k=1)
        with pytest.raises(TypeError, match="has no input 'z'"):
            model(x=[1.0], z=1)


def test_names_that_are_no_keywords(export: Export) -> None:
    def build() -> tuple[Infos, Infos]:
        x, y = placeholder("x"), placeholder("y")
        return {"x-1": x, "y": y}, {"z": x + y}

    with session_group.load(export(build), 1) as model:
        assert model(**{"x-1": 1.0, "y": 2})["z"] == 3
        with pytest.raises(
            TypeError, match=r"by name: \(\*\*\{'x-1': \.\.\., 'y': \.\.\.\}\)"
        ):
            model(1.0, 2.0)
