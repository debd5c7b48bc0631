"""Deadlines, limits, TLS, draining, timelines, batching: what operators rely on."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import UNLIMITED, only, place, ssl_config
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from test_grpc import fails, predict, values
from test_models import bias

CODES = grpc.StatusCode


def loop(server, n, **options):
    """A request that computes for about n * 2 microseconds."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "loop"
    request.inputs["word"].CopyFrom(tf.make_tensor_proto(["a"]))
    request.inputs["n"].CopyFrom(tf.make_tensor_proto(n, tf.int32))
    return server.predict.Predict.future(request, **options)


def metric(server, name):
    text = server.http("GET", "/metrics")[2].decode()
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)
    )


def wait_for_metric(server, name, value):
    deadline = time.monotonic() + 20
    while (now := metric(server, name)) != value:
        assert time.monotonic() < deadline, f"{name} is {now}, not {value}"
        time.sleep(0.02)


IN_FLIGHT = "session_group_in_flight"
WAITING = "session_group_server_waiting_requests"


def test_deadlines_stop_requests(start, base):
    server = start(*only("loop", base), "--rest_api_timeout_in_ms=300")
    loop(server, 3, timeout=30).result()
    begun = time.monotonic()
    fails(CODES.DEADLINE_EXCEEDED, "", loop(server, 100_000_000, timeout=0.3).result)
    body = {"inputs": {"word": ["a"], "n": 100_000_000}}
    code, _, answer = server.http("POST", "/v1/models/loop:predict", body)
    assert code == 504, answer
    # They do not run on.
    loop(server, 3, timeout=5).result()
    assert time.monotonic() - begun < 10


def test_requests_that_are_gone_are_not_computed(start, base, metrics):
    server = start(*only("loop", base), "--grpc_max_threads=1", metrics)
    loop(server, 3).result()
    count = "session_group_requests_total"
    before = metric(server, count)
    first = loop(server, 100_000_000, timeout=5)
    wait_for_metric(server, IN_FLIGHT, 1)
    others = [loop(server, 3) for _ in range(5)]
    wait_for_metric(server, WAITING, 5)
    for other in others[:3]:
        other.cancel()
    wait_for_metric(server, WAITING, 2)
    for other in others[3:]:
        other.result()
    assert metric(server, count) == before + 3
    assert first.code() == CODES.DEADLINE_EXCEEDED


def test_only_so_many_wait(start, base, metrics):
    flags = [metrics, "--grpc_max_threads=1", "--max_waiting_requests=2"]
    server = start(*only("loop", base), *flags)
    running = [loop(server, 100_000_000, timeout=5)]
    wait_for_metric(server, IN_FLIGHT, 1)
    running += [loop(server, 3) for _ in range(2)]
    wait_for_metric(server, WAITING, 2)
    fails(CODES.RESOURCE_EXHAUSTED, "--max_waiting_requests", loop(server, 3).result)
    for one in running[1:]:
        one.result()


def test_large_requests_are_refused(start, base):
    server = start(*only("types", base), "--max_request_bytes=100000")
    small, large = np.zeros([20_000], np.float32), np.zeros([30_000], np.float32)
    predict(server, "types", "float32", {"x": small})
    # As gRPC has it.
    fails(
        CODES.OUT_OF_RANGE,
        "",
        lambda: predict(server, "types", "float32", {"x": large}),
    )
    body = {"signature_name": "float32", "inputs": [0.0] * 30_000}
    code, _, answer = server.http("POST", "/v1/models/types:predict", body)
    assert (code, b"100000 bytes" in answer) == (429, True)


def test_running_requests_are_drained(start, base, metrics):
    server = start(*only("loop", base), metrics)
    loop(server, 3).result()
    stub = health_pb2_grpc.HealthStub(server.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    running = [loop(server, 1_000_000) for _ in range(3)]
    wait_for_metric(server, IN_FLIGHT, 3)
    server.process.terminate()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert all(one.result().outputs for one in running)
    assert server.process.wait(30) == 0


def test_slow_requests_leave_the_server_awake(start, base, metrics):
    """Also where requests were quick before, and wrong ones still are."""
    server = start(*only("loop", base), metrics)
    for _ in range(50):
        loop(server, 3).result()
        fails(
            CODES.INVALID_ARGUMENT,
            "",
            lambda: predict(server, "loop", inputs={"x": [1.0]}),
        )
    running = [loop(server, 100_000_000, timeout=8) for _ in range(6)]
    wait_for_metric(server, IN_FLIGHT, 6)
    health = health_pb2_grpc.HealthStub(server.channel)
    health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    for one in running:
        assert one.code() == CODES.DEADLINE_EXCEEDED


def test_draining_ends(start, base, metrics):
    server = start(*only("loop", base), "--drain_seconds=1", metrics)
    running = loop(server, 2_000_000_000)
    wait_for_metric(server, IN_FLIGHT, 1)
    begun = time.monotonic()
    server.process.terminate()
    assert server.process.wait(30) == 1
    assert time.monotonic() - begun < 10
    assert running.code() != CODES.OK


def test_systemd_is_told_when_the_server_serves_and_when_it_ends(start, base):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(60)
        systemd.bind(str(base / "notify"))
        server = start(
            *only("half", base),
            wait=False,
            env={"NOTIFY_SOCKET": str(base / "notify")},
        )
        assert systemd.recv(100) == b"READY=1\n"
        assert server.rest("/v1/models/half:predict", {"instances": [1]})
        assert server.stop() == 0
        assert systemd.recv(100) == b"STOPPING=1\n"


def test_sighup_reads_the_models_again(start, base):
    """And says at once what is wrong with them."""
    entry = 'config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}'
    config = base / "models.config"

    def configure(*names):
        entries = "".join(entry.format(name, base) for name in names)
        config.write_text(f"model_config_list {{ {entries} }}")

    def logged(text):
        deadline = time.monotonic() + 30
        while text not in (base / "server0.log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    configure("half")
    server = start(f"--model_config_file={config}", "--max_num_load_retries=0")
    configure("half", "loop")
    # Not by itself.
    time.sleep(1.5)
    with pytest.raises(grpc.RpcError):
        server.status("loop")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("loop", {1: "AVAILABLE"})
    config.write_text("models")
    server.process.send_signal(signal.SIGHUP)
    logged("the model config file is not applied")
    configure("half", "half")
    server.process.send_signal(signal.SIGHUP)
    logged("ERROR session_group_server::serve: the model config file: ")
    assert server.status("half") == {1: "AVAILABLE"}
    configure("half")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("loop", {1: "END"})


def test_sighup_ends_a_server_without_such_a_file(start, base):
    server = start(*only("half", base))
    assert server.stop(signal.SIGHUP) == -signal.SIGHUP


def test_a_unix_socket(start, base):
    path = base / "socket"
    server = start(*only("half", base), f"--grpc_socket_path={path}")
    with grpc.insecure_channel(f"unix:{path}", UNLIMITED) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for size in [1, 100, 10_000, 3_000_000]:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "half"
            x = np.arange(size, dtype=np.float32)
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
            assert np.array_equal(values(stub.Predict(request).outputs["y"]), x / 2 + 2)
    assert server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("path", ["v1/models/half:predict", "v2/models/half/infer"])
def test_cors(start, base, path):
    server = start(*only("half", base), "--rest_api_enable_cors_support")
    origin = {"Origin": "https://example.com"}
    for method, body in [("OPTIONS", None), ("POST", {"instances": [1]}), ("POST", "")]:
        _, headers, _ = server.http(method, f"/{path}", body, origin)
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Allow-Methods"] == "POST, GET"


@pytest.mark.parametrize("is_mutual", [False, True])
def test_tls(start, base, certificates, is_mutual):
    file = ssl_config(base, certificates, is_mutual)
    stranger = grpc.ssl_channel_credentials(certificates["ca.pem"])
    own = grpc.ssl_channel_credentials(
        certificates["ca.pem"], certificates["client.key"], certificates["client.pem"]
    )
    credentials = own if is_mutual else stranger
    server = start(
        *only("half", base), f"--ssl_config_file={file}", credentials=credentials
    )
    assert bias(server) == 2
    strangers = grpc.secure_channel(f"localhost:{server.port}", stranger)
    plain = grpc.insecure_channel(f"localhost:{server.port}")
    for channel, is_welcome in [(strangers, not is_mutual), (plain, False)]:
        ready = grpc.channel_ready_future(channel)
        try:
            ready.result(10 if is_welcome else 2)
            health = health_pb2_grpc.HealthStub(channel)
            health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            was_taken = True
        except (grpc.FutureTimeoutError, grpc.RpcError):
            was_taken = False
        assert was_taken == is_welcome
        channel.close()


def test_a_certificate_of_version_1(start, base, tmp_path, certificates):
    log = tmp_path / "log"
    server = start(
        *only("half", base),
        f"--ssl_config_file={ssl_config(base, certificates, is_mutual=True)}",
        wait=False,
        log=log,
    )
    server.wait_for_port()
    old = grpc.ssl_channel_credentials(
        certificates["ca.pem"], certificates["client.key"], certificates["old.pem"]
    )
    with grpc.secure_channel(f"localhost:{server.port}", old) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        fails(CODES.UNAVAILABLE, "", lambda: health.Check(request, timeout=30))
    assert "it is of X.509's version 1" in log.read_text()


def test_timelines(start, base, tmp_path):
    folder = tmp_path / "timelines"
    server = start(
        *only("half", base),
        "--timeline_start_step=2",
        "--timeline_interval_step=3",
        "--timeline_trace_count=2",
        f"--timeline_path={folder}",
    )
    for _ in range(12):
        bias(server)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [
        "half-timeline-0.json",
        "half-timeline-1.json",
    ]
    events = json.loads(files[0].read_text())["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert {"ts", "dur", "pid", "tid", "name"} <= set(complete[0])
    assert {event["args"]["name"].split("/")[0] for event in complete} & {
        "y",
        "mul",
        "add",
    }


def test_connections_beyond_the_limit_wait(start, base):
    server = start(*only("half", base), "--max_connections=1")
    assert bias(server) == 2
    other = grpc.insecure_channel(f"localhost:{server.port}")
    with pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(other).result(0.5)
    server.channel.close()
    grpc.channel_ready_future(other).result(10)
    other.close()


def test_answers_as_tensor_content(start, base):
    server = start(*only("types", base), "--enable_serialization_as_tensor_content")
    array = np.array([[1.5, 2.5]], np.float32)
    y = predict(server, "types", "float32", {"x": array}).outputs["y"]
    assert (y.tensor_content, list(y.float_val)) == (array.tobytes(), [])
    y = predict(server, "types", "string", {"x": [b"a", b"bc"]}).outputs["y"]
    assert y.tensor_content == b"\x01\x02abc"


def batching(tmp_path, text):
    file = tmp_path / "batching"
    file.write_text(text)
    return ["--enable_batching", f"--batching_parameters_file={file}"]


def test_requests_are_batched(start, base, tmp_path, metrics):
    text = "max_batch_size { value: 8 } batch_timeout_micros { value: 200000 } "
    text += (
        "num_batch_threads { value: 2 } allowed_batch_sizes: 4 allowed_batch_sizes: 8"
    )
    flags = batching(tmp_path, text)
    server = start(
        *only("half", base),
        *flags,
        metrics,
        "--grpc_max_threads=16",
        "--session_num_per_group=2",
    )
    with ThreadPoolExecutor(16) as pool:
        xs = [[float(i)] * (1 + i % 3) for i in range(64)]
        answers = list(pool.map(lambda x: predict(server, inputs={"x": x}), xs))
    for x, answer in zip(xs, answers):
        assert values(answer.outputs["y"]).tolist() == [one / 2 + 2 for one in x]
    runs = metric(server, ":tensorflow:serving:batching_session:wrapped_run_count")
    rows = metric(server, ":tensorflow:serving:batching_session:input_batch_size_sum")
    padded = metric(
        server, ":tensorflow:serving:batching_session:processed_batch_size_sum"
    )
    assert rows == sum(map(len, xs)) and runs <= 32
    assert padded >= rows and padded % 4 == 0
    # On all sessions of the group, each of which has answered a request before, also in both sizes.
    assert metric(server, "session_group_requests_total") == runs + 2 * 3
    text = "Task size 9 is larger than maximum input batch size 8"
    fails(
        CODES.INVALID_ARGUMENT, text, lambda: predict(server, inputs={"x": [0.0] * 9})
    )
    assert (
        values(
            predict(server, inputs={"x": np.zeros([0], np.float32)}).outputs["y"]
        ).size
        == 0
    )


def test_batches_of_different_shapes(start, base, tmp_path):
    """With padding shorter rows are made longer, without each shape runs by itself."""
    for pads in [True, False]:
        text = "max_batch_size { value: 2 } batch_timeout_micros { value: 2000000 } "
        text += f"num_batch_threads {{ value: 1 }} pad_variable_length_inputs: {str(pads).lower()}"
        server = start(
            *only("types", base), *batching(tmp_path, text), "--grpc_max_threads=8"
        )
        xs = [np.array([[5, 6]], np.int64), np.array([[7, 8, 9]], np.int64)]
        with ThreadPoolExecutor(2) as pool:
            calls = [
                pool.submit(predict, server, "types", "int64", {"x": x}) for x in xs
            ]
        found = [values(call.result().outputs["y"]).tolist() for call in calls]
        assert found == [[[5, 6, 5]] if pads else [[5, 6]], [[7, 8, 9]]]
        text = "input tensors must have at least one dimension"
        fails(
            CODES.INVALID_ARGUMENT,
            text,
            lambda: predict(server, "types", "int64", {"x": np.int64(1)}),
        )
        server.stop()


def test_a_batched_tensor_may_have_two_names(start, base, tmp_path):
    server = start(
        *only("types", base), *batching(tmp_path, "max_batch_size { value: 4 }")
    )
    outputs = predict(server, "types", "both", {"x": [1.5, 2.5]}).outputs
    assert values(outputs["y"]).tolist() == values(outputs["z"]).tolist() == [1.5, 2.5]


def test_a_full_queue_is_unavailable(start, base, tmp_path):
    text = "max_batch_size { value: 4 } max_enqueued_batches { value: 1 } "
    text += "batch_timeout_micros { value: 3000000 }"
    server = start(*only("half", base), *batching(tmp_path, text))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, server, inputs={"x": [0.0] * 3})
        time.sleep(1)
        # It would not fit, and no other batch may wait.
        text = "currently 1 batches enqueued and max_enqueued_batches is 1"
        fails(CODES.UNAVAILABLE, text, lambda: predict(server, inputs={"x": [0.0] * 3}))
        assert len(values(first.result().outputs["y"])) == 3


def test_expired_requests_leave_their_batch(start, base, tmp_path, metrics):
    text = "max_batch_size { value: 8 } batch_timeout_micros { value: 2000000 }"
    server = start(*only("half", base), *batching(tmp_path, text), metrics)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0] * 2))
    gone = server.predict.Predict.future(request, timeout=0.5)
    stays = server.predict.Predict.future(request, timeout=30)
    assert len(values(stays.result().outputs["y"])) == 2
    assert gone.code() == CODES.DEADLINE_EXCEEDED
    rows = ":tensorflow:serving:batching_session:input_batch_size_sum"
    assert metric(server, rows) == 2


def test_batching_of_each_version(start, base, metrics):
    place(base / "half", 2, "half_plus")
    (base / "half/2/batching_params.pbtxt").write_text("max_batch_size { value: 3 }")
    server = start(
        *only("half", base),
        "--enable_batching",
        "--enable_per_model_batching_parameters",
        metrics,
    )
    assert bias(server) == 2
    fails(
        CODES.INVALID_ARGUMENT,
        "Task size 4",
        lambda: predict(server, inputs={"x": [0.0] * 4}),
    )


def test_wrong_batching_parameters(start, base, tmp_path):
    log = tmp_path / "log"
    text = "max_batch_size { value: 8 } allowed_batch_sizes: 4"
    server = start(*only("half", base), *batching(tmp_path, text), wait=False, log=log)
    assert server.process.wait(60) == 255
    assert (
        "Last entry in allowed_batch_sizes must match max_batch_size" in log.read_text()
    )


def test_many_clients_of_everything(start, base, tmp_path):
    """gRPC and REST, right and wrong, by many at a time: each gets its own answer."""
    server = start(*only("half", base), "--session_num_per_group=2")
    wrong = []

    def ask(number):
        for i in range(40):
            x = float(number * 1000 + i)
            if number % 3 == 0:
                got = server.rest("/v1/models/half:predict", {"instances": [x]})[
                    "predictions"
                ]
            elif number % 3 == 1:
                got = values(predict(server, inputs={"x": [x]}).outputs["y"]).tolist()
            else:
                try:
                    got = predict(server, inputs={"z": [x]})
                except grpc.RpcError as error:
                    got = (
                        [x / 2 + 2] if error.code() == CODES.INVALID_ARGUMENT else error
                    )
            if got != [x / 2 + 2]:
                wrong.append((x, got))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []
