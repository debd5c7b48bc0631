"""Answers are those of a stock session, bit for bit."""

from typing import Any

import numpy as np
import pytest
import requests_of
import session_group
import tensorflow as tf
from stock import MODELS, Stock, assert_same


@pytest.mark.parametrize(
    ("name", "inputs"), requests_of.ALL, ids=[name for name, _ in requests_of.ALL]
)
@pytest.mark.parametrize("execution", ["caller", "worker", "pool"])
def test_answers(name: str, inputs: dict[str, Any], execution: str) -> None:
    with (
        Stock(MODELS / name) as stock,
        session_group.load(
            MODELS / name, 2, execution=execution, kernels="stock"
        ) as model,
    ):
        want = stock.call("serving_default", **inputs)
        definition = stock.meta_graph.signature_def["serving_default"]
        feeds = {
            definition.inputs[key].name: np.asarray(value, dtype_of(definition, key))
            for key, value in inputs.items()
        }
        fetches = [info.name for info in definition.outputs.values()]
        for session in range(2):
            assert_same(model(**inputs), want)
            run = model.run(feeds, fetches, session=session)
            assert_same(dict(zip(definition.outputs, run)), want)


def dtype_of(definition: Any, name: str) -> Any:
    return tf.as_dtype(definition.inputs[name].dtype).as_numpy_dtype


def test_variables_are_shared() -> None:
    with session_group.load(MODELS / "state", 3, policy="round_robin") as model:
        x = np.random.default_rng(0).standard_normal((64, 1024), np.float32)
        text = ["short", "long " * 1000, ""]
        assert model.signatures["assign"](x=x, text=text)["n"] == 3
        read = model.signatures["read"]
        for _ in range(3):
            answer = read()
            assert_same(answer["x"], x)
            assert_same(answer["rows"], x[8:40])
            assert answer["text"].tolist() == [s.encode() for s in text]
        assert [session.runs for session in model.stats()] == [2, 1, 1]


def test_inputs_may_change_after_the_call() -> None:
    with session_group.load(MODELS / "state", 1) as model:
        x = np.ones((64, 1024), np.float32)
        text = np.array([b"a" * 100], object)
        model.signatures["assign"](x=x, text=text)
        x[:] = 2
        text[0] = b"b" * 100
        answer = model.signatures["read"]()
        assert (answer["x"] == 1).all()
        assert answer["text"].tolist() == [b"a" * 100]


def test_targets_and_options() -> None:
    with session_group.load(MODELS / "wide_deep", 1, kernels="stock") as model:
        feeds = {
            f"serving_default_{name}:0": value
            for name, value in requests_of.wide_deep(2).items()
        }
        options = tf.compat.v1.RunOptions(timeout_in_ms=60_000)
        target = "StatefulPartitionedCall"
        assert model.run(feeds, [], [target], options=options) == []
        [score] = model.run(feeds, [target + ":0"], [target])
        assert score.shape == (2,)


def test_warm_up_runs_on_each_session() -> None:
    with session_group.load(MODELS / "wide_deep", 3, kernels="stock") as model:
        model.warm_up(**requests_of.wide_deep(1))
        assert [session.runs for session in model.stats()] == [1, 1, 1]
