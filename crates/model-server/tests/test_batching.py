"""Batches: in which sizes versions warm up, and requests that are larger than a batch."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import only, place
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
from test_grpc import fails, predict, values
from test_models import bias
from test_operations import batching, metric

CODES = grpc.StatusCode
RUNS = "session_group_requests_total{"


def record(x):
    """A request of "half", as a version brings it to warm up."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x, tf.float32))
    log = prediction_log_pb2.PredictLog(request=request)
    return prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString()


def bring(version, *records):
    folder = version / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for one in records:
            writer.write(one)


SIZES = "".join(f" allowed_batch_sizes: {size}" for size in [2, 4, 8])


@pytest.mark.parametrize("records", [[], [[1.0] * 3], [[1.0], [2.0] * 5, [3.0] * 8]])
def test_each_size_is_run_before_a_version_serves(
    start, base, tmp_path, records, metrics
):
    """Once on each of two sessions, beside the requests that the version brings, or one of zeros."""
    if records:
        bring(base / "half/1", *map(record, records))
    flags = batching(tmp_path, "max_batch_size { value: 8 }" + SIZES)
    server = start(*only("half", base), *flags, metrics, "--session_num_per_group=2")
    assert metric(server, RUNS) == 2 * (max(len(records), 1) + 3)
    assert bias(server) == 2
    # A batch of one row has run in the size of two.
    padded = ":tensorflow:serving:batching_session:processed_batch_size_sum"
    assert metric(server, padded) == 2


def test_sizes_of_each_version(start, base, metrics):
    parameters = "max_batch_size { value: 8 }" + SIZES
    (base / "half/1/batching_params.pbtxt").write_text(parameters)
    server = start(
        *only("half", base),
        "--enable_batching",
        "--enable_per_model_batching_parameters",
        metrics,
    )
    assert metric(server, RUNS) == 1 + 3
    place(base / "half", 2, "half_plus")
    server.wait_for("half", {2: "AVAILABLE", 1: "END"})
    assert metric(server, RUNS) == 1


def test_without_warming_up_no_size_is_run(start, base, tmp_path, metrics):
    flags = batching(tmp_path, "max_batch_size { value: 8 }" + SIZES)
    server = start(*only("half", base), *flags, metrics, "--enable_model_warmup=false")
    assert metric(server, RUNS) == 0
    assert bias(server) == 2


def test_a_model_that_fits_no_size_serves(start, tmp_path, metrics):
    """Zeros are made up, so that it may be they that don't fit."""
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    ensure = lambda x: {"y": tf.ensure_shape(x, [1])}  # noqa: E731
    module.f = tf.function(ensure, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "one/1"), signatures=module.f)
    flags = batching(tmp_path, "max_batch_size { value: 8 }" + SIZES)
    log = tmp_path / "log"
    server = start(*only("one", tmp_path), *flags, metrics, log=log)
    assert server.status("one") == {1: "AVAILABLE"}
    assert "does not answer a request of zeros" in log.read_text()


SPLIT = (
    "max_batch_size { value: 100 } max_execution_batch_size { value: 8 } "
    "enable_large_batch_splitting { value: true } max_enqueued_batches { value: 100 } "
    "num_batch_threads { value: 2 } batch_timeout_micros { value: 20000 } "
)


@pytest.mark.parametrize("sizes", ["", SIZES])
def test_large_requests_are_split(start, base, tmp_path, metrics, sizes):
    server = start(*only("types", base), *batching(tmp_path, SPLIT + sizes), metrics)
    before = metric(server, RUNS)
    for dtype, rows in itertools.product(
        ["float32", "int64", "string"], [1, 8, 9, 100]
    ):
        if dtype == "string":
            x = np.array([[f"{i}".encode()] * 3 for i in range(rows)], object)
        else:
            x = np.arange(rows * 3).reshape(rows, 3).astype(dtype)
        y = values(predict(server, "types", dtype, {"x": x}).outputs["y"])
        assert np.array_equal(y, x), (dtype, rows)
    runs = 3 * (1 + 1 + 2 + 13)
    assert metric(server, RUNS) == before + runs
    largest = ':tensorflow:serving:batching_session:processed_batch_size_bucket{le="8"}'
    assert metric(server, largest) == runs
    text = "Task size 101 is larger than maximum input batch size 100"
    x = np.zeros([101, 3], np.float32)
    fails(
        CODES.INVALID_ARGUMENT,
        text,
        lambda: predict(server, "types", "float32", {"x": x}),
    )


def test_split_requests_share_batches(start, base, tmp_path, metrics):
    """Each client gets its own rows, in order, whoever fills its batches."""
    text = SPLIT.replace("20000", "200000")
    flags = [*batching(tmp_path, text), "--grpc_max_threads=16"]
    server = start(*only("types", base), *flags, metrics, "--session_num_per_group=2")
    before = metric(server, RUNS)
    xs = [
        np.arange(i * 1000, i * 1000 + 1 + i * 7 % 30).astype(np.int64)
        for i in range(40)
    ]

    def ask(x):
        return values(predict(server, "types", "int64", {"x": x}).outputs["y"])

    with ThreadPoolExecutor(16) as pool:
        for x, y in zip(xs, pool.map(ask, xs)):
            assert np.array_equal(x, y)
    rows = sum(map(len, xs))
    runs = metric(server, RUNS) - before
    # Fewer than if each had batches of its own.
    assert rows / 8 <= runs < sum(-(-len(x) // 8) for x in xs)


def test_a_part_that_fails_fails_its_request(start, base, tmp_path):
    """And no other: here one waits in a batch until its time is over."""
    text = SPLIT.replace("20000", "3000000")
    server = start(*only("types", base), *batching(tmp_path, text))
    x = np.zeros([9], np.float32)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "types"
    request.model_spec.signature_name = "float32"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    gone = server.predict.Predict.future(request, timeout=1)
    assert gone.code() == CODES.DEADLINE_EXCEEDED
    y = values(predict(server, "types", "float32", {"x": x}).outputs["y"])
    assert np.array_equal(x, y)


def test_large_requests_in_a_full_queue(start, base, tmp_path):
    text = SPLIT.replace("{ value: 100 } num", "{ value: 1 } num")
    text = text.replace("20000", "3000000").replace("value: 100", "value: 16")
    server = start(*only("types", base), *batching(tmp_path, text))
    # Room for the largest request there always is, when no other waits.
    x = np.zeros([16], np.float32)
    assert len(values(predict(server, "types", "float32", {"x": x}).outputs["y"])) == 16
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, server, "types", "float32", {"x": x[:3]})
        time.sleep(1)
        ask = lambda: predict(server, "types", "float32", {"x": x})  # noqa: E731
        fails(CODES.UNAVAILABLE, "batches enqueued and max_enqueued_batches is 2", ask)
        assert len(values(first.result().outputs["y"])) == 3


def test_wrong_sizes(start, base, tmp_path):
    for text, says in [
        (SPLIT + "allowed_batch_sizes: 4", "must match max_execution_batch_size"),
        (SPLIT.replace("value: 8", "value: 101"), "greater than or equal to"),
    ]:
        log = tmp_path / "log"
        flags = batching(tmp_path, text)
        server = start(*only("half", base), *flags, wait=False, log=log)
        assert server.process.wait(60) == 255
        assert says in log.read_text()


def lookup(id=0, rows=1, **others):
    """Inputs of the model "lookups", whose tables have 10 rows."""
    inputs = {
        "ids": np.full([rows, 3], id, np.int64),
        "words": np.full([rows, 2, 2], id, np.int32),
        "x": np.full([rows, 2], id, np.float32),
    }
    return inputs | others


# What one request of a batch can have that its others have not.
BAD = {
    "an id that no table has": lookup(10),
    "another type": lookup(x=np.ones([1, 2], np.float64)),
    "another number of columns": lookup(ids=np.zeros([1, 2], np.int64)),
    "another rank": lookup(ids=np.zeros([1, 3, 1], np.int64)),
}


@pytest.mark.parametrize("pads", [False, True])
def test_a_bad_request_fails_no_other_of_its_batch(start, tmp_path, metrics, pads):
    place(tmp_path / "lookups", 1, "lookups")
    text = "max_batch_size { value: 64 } batch_timeout_micros { value: 1000000 } "
    text += f"num_batch_threads {{ value: 1 }} pad_variable_length_inputs: {str(pads).lower()}"
    flags = only("lookups", tmp_path), batching(tmp_path, text)
    server = start(*flags[0], *flags[1], metrics, "--grpc_max_threads=16")

    def ask(inputs):
        return predict(server, "lookups", inputs=inputs, outputs=["rows", "deep"])

    good = [lookup(id, rows) for id, rows in [(1, 1), (2, 2), (3, 1), (4, 3), (5, 1)]]
    alone = [ask(inputs) for inputs in good]
    # Padding would add the missing column.
    bads = BAD.keys() - ({"another number of columns"} if pads else set())
    for bad, number in itertools.product(sorted(bads), [1, 3]):
        before = metric(server, RUNS)
        with ThreadPoolExecutor(16) as pool:
            wrong = [pool.submit(ask, BAD[bad]) for _ in range(number)]
            right = [pool.submit(ask, inputs) for inputs in good]
        for call in wrong:
            fails(CODES.INVALID_ARGUMENT, "", call.result)
        for call, expected in zip(right, alone, strict=True):
            for name, output in expected.outputs.items():
                found = values(call.result().outputs[name])
                np.testing.assert_array_equal(found, values(output))
        # In halves, and no oftener.
        assert metric(server, RUNS) - before < 2 * (len(good) + number)
