"""Requests that wait for their batch: they have no thread meanwhile, and may end before it runs."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import place
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    regression_pb2,
)
from test_grpc import examples, predict, request, values
from test_operations import metric, wait_for_metric
from test_v2 import client, infer, of_json, post

CODES = grpc.StatusCode
RUNS = ":tensorflow:serving:batching_session:wrapped_run_count"
ROWS = ":tensorflow:serving:batching_session:input_batch_size_sum"
WAITING = "session_group_server_batch_waiting_requests"
IN_FLIGHT = "session_group_server_in_flight_requests"
# As few threads as there may be.
FEW = [f"--{flag}=1" for flag in "grpc_max_threads rest_api_num_threads".split()]
MANY = 32
FOREVER = 3_000_000_000


@pytest.fixture
def begin(start, base, metrics, tmp_path):
    """Starts a server, of whose models "half" runs in batches and "types" does not."""

    def begin(*flags, timeout=FOREVER, threads=1):
        (base / "half/1/batching_params.pbtxt").write_text(
            f"max_batch_size {{ value: {MANY} }} batch_timeout_micros {{ value: {timeout} }}"
        )
        parameters = tmp_path / "parameters"
        parameters.write_text(f"num_batch_threads {{ value: {threads} }}")
        config = tmp_path / "models.config"
        entry = (
            'config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}'
        )
        entries = "".join(entry.format(name, base) for name in ["half", "types"])
        config.write_text(f"model_config_list {{ {entries} }}")
        return start(
            f"--model_config_file={config}",
            "--enable_batching",
            f"--batching_parameters_file={parameters}",
            "--enable_per_model_batching_parameters",
            metrics,
            *FEW,
            *flags,
        )

    return begin


def rest(server, call, body):
    return server.rest(f"/v1/models/half:{call}", body)


def grpc_predict(server, x):
    answer = predict(server, inputs={"x": [x]})
    return values(answer.outputs["y"]).tolist()


def grpc_classify(server, x):
    asked = classification_pb2.ClassificationRequest(input=examples(x))
    asked.model_spec.name, asked.model_spec.signature_name = "half", "classify"
    result = server.predict.Classify(asked, timeout=60).result
    return [row.classes[1].score for row in result.classifications]


def grpc_regress(server, x):
    asked = regression_pb2.RegressionRequest(input=examples(x))
    asked.model_spec.name, asked.model_spec.signature_name = "half", "regress"
    result = server.predict.Regress(asked, timeout=60).result
    return [row.value for row in result.regressions]


def grpc_multi_inference(server, x):
    asked = inference_pb2.MultiInferenceRequest(input=examples(x))
    task = asked.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name, task.model_spec.signature_name = "half", "regress"
    (result,) = server.predict.MultiInference(asked, timeout=60).results
    return [row.value for row in result.regression_result.regressions]


def rest_predict(server, x):
    return rest(server, "predict", {"instances": [x]})["predictions"]


def rest_classify(server, x):
    body = {"signature_name": "classify", "examples": [{"x": x}]}
    return [row[1][1] for row in rest(server, "classify", body)["results"]]


def rest_regress(server, x):
    body = {"signature_name": "regress", "examples": [{"x": x}]}
    return rest(server, "regress", body)["results"]


def v2_grpc(server, x):
    with client(server, "grpc") as found:
        return infer(found, "half", {"x": np.float32([x])}).as_numpy("y").tolist()


def v2_rest(server, x):
    answer = post(server, "half", of_json("serving_default", "FP32", [1], [x]))
    return answer["outputs"][0]["data"]


CALLS = [
    grpc_predict,
    grpc_classify,
    grpc_regress,
    grpc_multi_inference,
    rest_predict,
    rest_classify,
    rest_regress,
    v2_grpc,
    v2_rest,
]


def answers_alone(server):
    """Whether a model is answered that runs in no batches."""
    x = [7.0]
    y = predict(server, "types", "float32", {"x": x}).outputs["y"]
    body = {"signature_name": "float32", "inputs": x}
    return (
        values(y).tolist() == server.rest("/v1/models/types:predict", body)["outputs"]
    )


@pytest.mark.parametrize("call", CALLS)
def test_a_batch_has_more_requests_than_threads(begin, call):
    server = begin("--serving_threads=1")
    # First on threads; then it is known that such requests take little, and they stay where they are read.
    for _ in range(2):
        before = metric(server, RUNS)
        with ThreadPoolExecutor(MANY) as pool:
            answers = [pool.submit(call, server, float(x)) for x in range(MANY - 1)]
            wait_for_metric(server, WAITING, MANY - 1)
            assert answers_alone(server)
            assert not any(answer.done() for answer in answers)
            # All wait for the last one.
            answers.append(pool.submit(call, server, float(MANY - 1)))
            found = [answer.result() for answer in answers]
        assert found == [[x / 2 + 2] for x in range(MANY)]
        assert metric(server, RUNS) == before + 1
    assert metric(server, ROWS) == 2 * MANY
    assert metric(server, WAITING) == metric(server, IN_FLIGHT) == 0


@pytest.mark.parametrize("is_known", [False, True])
def test_deadlines_of_requests_in_a_batch(begin, is_known):
    """They pass long before the batch would run, and what is late is not run with the others."""
    server = begin("--rest_api_timeout_in_ms=500")
    if is_known:
        predict(server, inputs={"x": [0.0] * MANY})
        server.rest("/v1/models/half:predict", {"instances": [0.0] * MANY})
    before = metric(server, ROWS)
    asked = request(inputs={"x": [1.0]})
    late = [server.predict.Predict.future(asked, timeout=0.5) for _ in range(MANY // 2)]
    assert all(call.code() == CODES.DEADLINE_EXCEEDED for call in late)
    body = {"instances": [1.0]}
    code, _, answer = server.http("POST", "/v1/models/half:predict", body)
    assert (code, b"timeout exceeded while waiting" in answer) == (504, True)
    wait_for_metric(server, IN_FLIGHT, 0)
    full = predict(server, inputs={"x": [1.0] * MANY})
    assert values(full.outputs["y"]).tolist() == [2.5] * MANY
    assert metric(server, ROWS) == before + MANY
    assert metric(server, WAITING) == 0
    status = 'requests_total{model_name="half",status="DEADLINE_EXCEEDED",version="1"}'
    assert metric(server, f"session_group_server_{status}") >= 1


@pytest.mark.parametrize("is_known", [False, True])
def test_clients_that_go_leave_their_batch(begin, is_known):
    server = begin()
    if is_known:
        predict(server, inputs={"x": [0.0] * MANY})
    before = metric(server, ROWS)
    asked = request(inputs={"x": [1.0]})
    gone = [server.predict.Predict.future(asked) for _ in range(MANY // 2)]
    body = json.dumps({"instances": [1.0]}).encode()
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("localhost", server.rest_port)) as connection:
        connection.sendall(head % len(body) + body)
        wait_for_metric(server, WAITING, MANY // 2 + 1)
    for call in gone:
        call.cancel()
    wait_for_metric(server, IN_FLIGHT, 0)
    # As many rows as a batch has, of which none waits for the clients that are gone.
    stays = server.predict.Predict.future(request(inputs={"x": [3.0] * 4}))
    wait_for_metric(server, WAITING, MANY // 2 + 2)
    full = predict(server, inputs={"x": [1.0] * (MANY - 4)})
    assert values(full.outputs["y"]).tolist() == [2.5] * (MANY - 4)
    assert values(stays.result().outputs["y"]).tolist() == [3.5] * 4
    assert metric(server, ROWS) == before + MANY
    assert metric(server, WAITING) == 0


@pytest.mark.parametrize("is_known", [False, True])
def test_requests_in_a_batch_are_drained(begin, is_known):
    server = begin("--serving_threads=1", timeout=4_000_000)
    with ThreadPoolExecutor(MANY) as pool:
        if is_known:
            list(pool.map(lambda call: call(server, 1.0), CALLS))
        calls = CALLS * 2
        answers = [pool.submit(call, server, 8.0) for call in calls]
        wait_for_metric(server, WAITING, len(calls))
        server.process.terminate()
        assert [answer.result() for answer in answers] == [[6.0]] * len(calls)
    assert server.process.wait(30) == 0


def test_a_version_stays_for_the_requests_in_its_batches(begin, base):
    server = begin("--file_system_poll_wait_seconds=1", timeout=6_000_000)
    with ThreadPoolExecutor(len(CALLS)) as pool:
        answers = [pool.submit(call, server, 8.0) for call in CALLS]
        wait_for_metric(server, WAITING, len(CALLS))
        place(base / "half", 2, "half_plus")
        server.wait_for("half", {2: "AVAILABLE", 1: "UNLOADING"})
        assert [answer.result() for answer in answers] == [[6.0]] * len(CALLS)
    server.wait_for("half", {2: "AVAILABLE", 1: "END"})


def test_a_version_does_not_stay_for_clients_that_are_gone(begin, base):
    server = begin("--file_system_poll_wait_seconds=1")
    gone = server.predict.Predict.future(request(inputs={"x": [1.0]}))
    wait_for_metric(server, WAITING, 1)
    gone.cancel()
    place(base / "half", 2, "half_plus")
    server.wait_for("half", {2: "AVAILABLE", 1: "END"})
    assert grpc_predict(server, 8.0) == [6.0]


def slow(base):
    """A model "half" whose y takes very long if an x is negative, or if there is none."""

    def f(x):
        is_slow = tf.logical_or(tf.equal(tf.size(x), 0), tf.reduce_any(x < 0))
        most = tf.where(is_slow, 10**9, 0)
        i = tf.while_loop(lambda i: i < most, lambda i: (i + 1,), [tf.constant(0)])[0]
        return {"y": x + tf.cast(i, tf.float32) * 0, "z": x + 1}

    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.f = tf.function(f, input_signature=[spec])
    folder = base / "slow/1"
    tf.saved_model.save(module, str(folder), signatures=module.f)
    (base / "half/1").rename(base / "old")
    folder.rename(base / "half/1")


def test_batches_that_are_due_have_threads_of_their_own(begin, base):
    """Those of different outputs, which are in queues of their own."""
    slow(base)
    server = begin("--enable_model_warmup=false", timeout=500_000, threads=2)
    stuck = server.predict.Predict.future(request(inputs={"x": [-1.0]}, outputs=["y"]))
    quick = predict(server, inputs={"x": [1.0]}, outputs=["z"])
    assert values(quick.outputs["z"]).tolist() == [2.0]
    assert not stuck.done()
    stuck.cancel()


def test_what_runs_alone_leaves_the_thread_of_its_connection(begin, base):
    """However little others of its kind take, which run in batches."""
    slow(base)
    server = begin("--enable_model_warmup=false", "--serving_threads=1", timeout=0)
    for _ in range(30):
        assert predict(server, inputs={"x": [1.0]}).outputs
    empty = request(inputs={"x": np.zeros([0], np.float32)})
    stuck = server.predict.Predict.future(empty)
    for _ in range(30):
        assert predict(server, inputs={"x": [1.0]}).outputs
        assert answers_alone(server)
    assert not stuck.done()
    stuck.cancel()
