"""Inputs that a request may leave out, since the signature has defaults for them."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import Server
from tensorflow_serving.apis import inference_pb2
from test_grpc import predict, values
from test_v2 import client, infer
from tritonclient.utils import InferenceServerException

tf1 = tf.compat.v1
PREDICT, CLASSIFY, REGRESS = (
    f"/v1/models/defaults:{api}" for api in ("predict", "classify", "regress")
)


def export(folder):
    """y = x * k, with 3 and 5 for k; scores and values of examples are the scale, 4 by default."""
    build = tf1.saved_model.build_tensor_info

    def signature(inputs, outputs, method, defaults):
        inputs = {name: build(tensor) for name, tensor in inputs.items()}
        outputs = {name: build(tensor) for name, tensor in outputs.items()}
        made = tf1.saved_model.build_signature_def(
            inputs, outputs, f"tensorflow/serving/{method}"
        )
        for name, value in defaults.items():
            made.defaults[name].CopyFrom(tf.make_tensor_proto(value))
        return made

    with tf.Graph().as_default(), tf1.Session() as session:
        x, k = (tf1.placeholder(tf.float32, [None], name=name) for name in "xk")
        examples = tf1.placeholder(tf.string, [None], name="examples")
        scale = tf1.placeholder(tf.float32, [], name="scale")
        each = tf.fill([tf.size(examples)], scale)
        product = {"y": tf.multiply(x, k, name="y")}
        given = {"inputs": examples, "scale": scale}
        four = {"scale": 4.0}
        signatures = {
            "serving_default": signature(
                {"x": x, "k": k}, product, "predict", {"k": [3.0, 5.0]}
            ),
            "all": signature(
                {"x": x, "k": k}, product, "predict", {"x": [2.0, 1.0], "k": [3.0, 5.0]}
            ),
            "only": signature({"x": x}, {"y": x + 1}, "predict", {"x": [2.0, 1.0]}),
            "classify": signature(
                given, {"scores": each[:, tf.newaxis]}, "classify", four
            ),
            "regress": signature(given, {"outputs": each}, "regress", four),
            "other": signature(given, {"outputs": each}, "regress", {"scale": 7.0}),
            "none": signature({}, {"y": tf.constant([1.0, 2.0])}, "predict", {}),
            "needs": signature(given, {"outputs": each}, "regress", {}),
        }
        builder = tf1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "batched"])
def server(tmp_path_factory, request):
    base = tmp_path_factory.mktemp("defaults")
    export(base / "1")
    server = Server(
        "--model_name=defaults",
        f"--model_base_path={base}",
        f"--enable_batching={str(request.param).lower()}",
        log=base / "server.log",
    )
    server.wait_for("defaults", {1: "AVAILABLE"})
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    "body, y",
    [
        ({"instances": [{"x": 1}, {"x": 2}]}, [3, 10]),
        ({"instances": [1, 2]}, [3, 10]),
        ({"instances": [{"x": 1, "k": 7}, {"x": 2, "k": 8}]}, [7, 16]),
        ({"inputs": {"x": [1, 2]}}, [3, 10]),
        ({"inputs": [1, 2]}, [3, 10]),
        ({"inputs": {"x": [1, 2], "k": [7, 8]}}, [7, 16]),
        ({"signature_name": "all", "instances": [{}]}, [6, 5]),
        ({"signature_name": "all", "inputs": {}}, [6, 5]),
        ({"signature_name": "all", "inputs": {"x": [1, 2]}}, [3, 10]),
        ({"signature_name": "all", "instances": [{"k": 7}, {"k": 8}]}, [14, 8]),
        ({"signature_name": "only", "instances": [7]}, [8]),
        ({"signature_name": "only", "inputs": [7]}, [8]),
        ({"signature_name": "only", "inputs": {}}, [3, 2]),
        ({"signature_name": "none", "inputs": {}}, [1, 2]),
        ({"signature_name": "none", "instances": [{}]}, [1, 2]),
    ],
    ids=str,
)
def test_rest(server, body, y):
    answer = server.rest(PREDICT, body)
    assert answer == {"predictions" if "instances" in body else "outputs": y}


@pytest.mark.parametrize(
    "body, text",
    [
        ({"instances": [{"x": 1}, {"x": 2, "k": 3}]}, "keys must be equal to: k,x"),
        ({"instances": [{"k": 1}, {"k": 2}]}, "keys must be equal to: k,x"),
        ({"inputs": {"k": [1, 2]}}, "Missing named input: x"),
        ({"signature_name": "all", "instances": [1]}, "expecting list of objects"),
        ({"signature_name": "all", "inputs": [1]}, "expecting an object"),
        ({"signature_name": "none", "inputs": [1]}, "expecting an object"),
        ({"signature_name": "none", "instances": [1]}, "expecting list of objects"),
        ({"signature_name": "none", "instances": [{"x": 1}]}, "named input: x"),
    ],
    ids=str,
)
def test_rest_mistakes(server, body, text):
    code, _, answer = server.http("POST", PREDICT, body)
    assert code == 400 and text in answer.decode()


def test_grpc(server):
    def ask(inputs, **options):
        options.setdefault("signature", "serving_default")
        return list(
            values(
                predict(server, model="defaults", inputs=inputs, **options).outputs["y"]
            )
        )

    assert ask({"x": [1.0, 2.0]}) == [3, 10]
    assert ask({"x": [1.0, 2.0], "k": [7.0, 8.0]}) == [7, 16]
    assert ask({}, signature="all") == [6, 5]
    assert ask({}, signature="none") == [1, 2]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_v2(server, kind):
    def ask(signature, **inputs):
        with client(server, kind) as found:
            inputs = {name: np.float32(values) for name, values in inputs.items()}
            parameters = {"signature_name": signature}
            answer = infer(found, "defaults", inputs, parameters=parameters)
            return answer.as_numpy("y").tolist()

    assert ask("", x=[1, 2]) == [3, 10]
    assert ask("serving_default", x=[1, 2], k=[7, 8]) == [7, 16]
    assert ask("all") == [6, 5]
    assert ask("none") == [1, 2]
    with pytest.raises(InferenceServerException, match="feed name: x:0"):
        ask("", k=[1, 2])


def test_examples_over_rest(server):
    examples = [{"x": 1.0}, {"x": 2.0}]
    body = {"signature_name": "classify", "examples": examples}
    assert server.rest(CLASSIFY, body) == {"results": [[["", 4]], [["", 4]]]}
    for signature, value in (("regress", 4), ("other", 7)):
        body = {"signature_name": signature, "examples": examples}
        assert server.rest(REGRESS, body) == {"results": [value, value]}
    body = {"signature_name": "needs", "examples": examples}
    code, _, answer = server.http("POST", REGRESS, body)
    assert code == 400 and b"Expected one input Tensor." in answer


def test_several_signatures_at_a_time(server):
    def ask(*signatures):
        request = inference_pb2.MultiInferenceRequest()
        request.input.example_list.examples.add()
        for name in signatures:
            task = request.tasks.add()
            task.model_spec.name, task.model_spec.signature_name = "defaults", name
            method = "classify" if name == "classify" else "regress"
            task.method_name = f"tensorflow/serving/{method}"
        return server.predict.MultiInference(request)

    classified, valued = ask("classify", "regress").results
    [row] = classified.classification_result.classifications
    assert [c.score for c in row.classes] == [4]
    assert [r.value for r in valued.regression_result.regressions] == [4]
    with pytest.raises(Exception, match="different defaults for .*scale:0"):
        ask("regress", "other")
