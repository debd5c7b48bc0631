"""Signatures with defaults, and with what requests can't have; a request that does not end."""

import ctypes
import json
import threading

import eas
import pytest
import tensorflow as tf
from conftest import FAILED, MODELS, OK, Processor, library

tf1 = tf.compat.v1


@pytest.fixture
def optional(tmp_path):
    """y = x * k + b, where 3 and 5 are the default of k, and 1 that of b; a ragged output in "ragged"."""
    build = tf1.saved_model.build_tensor_info
    with tf.Graph().as_default(), tf1.Session() as session:
        x, k = (tf1.placeholder(tf.float32, [None], name=name) for name in "xk")
        b = tf1.placeholder(tf.float32, [], name="b")
        inputs = {
            name: build(tensor) for name, tensor in {"x": x, "k": k, "b": b}.items()
        }
        y = build(tf.add(x * k, b, name="y"))
        signature = tf1.saved_model.build_signature_def(inputs, {"y": y})
        signature.defaults["k"].CopyFrom(tf.make_tensor_proto([3.0, 5.0]))
        signature.defaults["b"].CopyFrom(tf.make_tensor_proto(1.0))
        wrong = tf1.saved_model.build_signature_def(inputs, {"y": y})
        wrong.defaults["k"].CopyFrom(tf.make_tensor_proto([3, 5]))
        words = tf.strings.split(tf1.placeholder(tf.string, [None], name="text"))
        ragged = tf1.saved_model.build_signature_def(
            {"x": inputs["x"]}, {"words": build(words)}
        )
        builder = tf1.saved_model.Builder(str(tmp_path / "model"))
        signatures = {"serving_default": signature, "wrong": wrong, "ragged": ragged}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    # A shape is not known for 1 at the least.
    return {"savedmodel_dir": str(tmp_path / "model"), "session_num": 2}


def test_inputs_with_defaults_may_be_left_out(start, optional):
    processor = start(optional)
    x, k = (eas.array("FLOAT", values) for values in ([1.0, 2.0], [7.0, 8.0]))
    assert list(processor.predict({"x": x})["y"].float_val) == [4, 11]
    assert list(processor.predict({"k": k, "x": x})["y"].float_val) == [8, 17]
    b = eas.array("FLOAT", [10.0], ())
    assert list(processor.predict({"b:0": b, "x": x})["y"].float_val) == [13, 20]
    assert "needs also the inputs x" in processor.refused(eas.request({"k": k}))
    signature = json.loads(processor.process(None, 0)[1])
    assert [port["name"] for port in signature["inputs"]] == ["b", "k", "x"]


def test_a_signature_that_can_not_be_served_says_so_when_it_is_used(start, optional):
    processor = start(optional)
    x = eas.array("FLOAT", [1.0, 2.0])
    message = processor.refused(eas.request({"x": x}, signature="ragged"))
    assert 'signature "ragged" can\'t be served: words: ' in message
    assert "made of several tensors" in message
    message = processor.refused(eas.request({"x": x}, signature="wrong"))
    assert 'input "k" is DT_INT32, and has to be DT_FLOAT' in message
    message = start(
        dict(optional, signature_name="ragged"), fails="made of several tensors"
    )
    assert "ragged" in message


def test_destroy_cancels_a_request_that_does_not_end():
    config = {"savedmodel_dir": str(MODELS / "control_flow"), "drain_timeout_ms": 100}
    processor = Processor(config)
    assert processor.state == 0
    n, x = (
        eas.array("INT32", [2**31 - 1], ()),
        eas.array("FLOAT", [1.0]),
    )
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(processor.process(eas.request({"n": n, "x": x})))
    )
    asking.start()
    while not asking.is_alive():
        pass
    asking.join(0.5)
    library.session_group_processor_destroy(ctypes.c_void_p(processor.handle))
    asking.join()
    [(state, message)] = answers
    assert state == FAILED != OK and message
    assert "destroy() has ended" in processor.refused(eas.request({"n": n, "x": x}))
