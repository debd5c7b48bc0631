"""Clients that are many, slow, short of time, stuck or gone: others are served all the same."""

import collections
import contextlib
import http.client
import json
import pathlib
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from conftest import only, place, ssl_config
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc
from test_grpc import fails, request
from test_operations import loop
from tritonclient.grpc import service_pb2, service_pb2_grpc

CODES = grpc.StatusCode
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture
def both(tmp_path):
    """Flags of a server with "loop", whose requests may be slow, and "half"."""
    place(tmp_path / "half", 1, "half_plus")
    place(tmp_path / "loop", 1, "tf1_saved_model")
    entry = 'config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}'
    config = tmp_path / "models.config"
    entries = "".join(entry.format(name, tmp_path) for name in ["half", "loop"])
    config.write_text(f"model_config_list {{ {entries} }}")
    return f"--model_config_file={config}"


@contextlib.contextmanager
def channel(server):
    """One with a connection of its own."""
    target, options = (
        f"localhost:{server.port}",
        [("grpc.use_local_subchannel_pool", 1)],
    )
    with grpc.insecure_channel(target, options) as made:
        yield made


def stub(made):
    return prediction_service_pb2_grpc.PredictionServiceStub(made)


def health(made, **options):
    return health_pb2_grpc.HealthStub(made).Check(
        health_pb2.HealthCheckRequest(), **options
    )


def test_short_deadlines_leave_the_connection(start, both):
    server = start(both)
    long = loop(server, 1_000_000)
    small = request("half", inputs={"x": [1.0]})
    large = request("half", inputs={"x": np.ones(100_000, np.float32)})
    codes = collections.Counter()
    for _ in range(30):
        ask = server.predict.Predict.future
        calls = [
            ask(large if i % 10 == 0 else small, timeout=0.002) for i in range(200)
        ]
        codes.update(call.code() for call in calls)
    assert set(codes) <= {CODES.OK, CODES.DEADLINE_EXCEEDED}
    assert codes[CODES.DEADLINE_EXCEEDED]
    assert long.result()


def test_refused_requests_leave_the_connection(start, both):
    """Each is answered before it has come."""
    server = start(both, "--max_request_bytes=1000")
    long = loop(server, 1_000_000)
    large = request("half", inputs={"x": np.ones(100_000, np.float32)})
    for _ in range(10):
        calls = [server.predict.Predict.future(large) for _ in range(200)]
        assert {call.code() for call in calls} == {CODES.OUT_OF_RANGE}
    assert long.result()


def test_slow_requests_leave_others_their_turn(start, both):
    server = start(both, "--grpc_max_threads=2")
    slow = [loop(server, 10**9) for _ in range(300)]
    half = request("half", inputs={"x": [1.0]})
    with channel(server) as other:
        for made in [server.channel, other]:
            assert stub(made).Predict(half, timeout=60)
            assert health(made, timeout=60)
        # A client that comes later need not wait for all of the first one's.
        server.predict, first = stub(other), server.predict
        assert loop(server, 1).result(60)
        server.predict = first
    assert not any(call.done() for call in slow)
    for call in slow:
        call.cancel()


def timeslices(server):
    """How often threads of the server were given a CPU, by those that serve connections and by others."""
    counts = collections.Counter()
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        serves = (task / "comm").read_text() == "serve\n"
        counts[serves] += int((task / "schedstat").read_text().split()[2])
    return counts


@pytest.mark.parametrize("micros", [0, 100_000])
def test_short_requests_stay_on_the_thread_of_their_connection(start, both, micros):
    server = start(both, f"--short_request_micros={micros}", "--serving_threads=1")
    asked = request("half", inputs={"x": [1.0]})
    v2 = service_pb2.ModelInferRequest(model_name="half")
    v2.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents[:] = [1]
    connection = http.client.HTTPConnection("localhost", server.rest_port)

    def rest():
        connection.request("POST", "/v1/models/half:predict", b'{"instances": [1.0]}')
        assert json.load(connection.getresponse()) == {"predictions": [2.5]}

    calls = [
        rest,
        lambda: server.predict.Predict(asked),
        lambda: service_pb2_grpc.GRPCInferenceServiceStub(server.channel).ModelInfer(
            v2
        ),
    ]
    for call in calls:
        for _ in range(10):
            call()
        before = timeslices(server)
        for _ in range(500):
            call()
        handed = timeslices(server)[False] - before[False]
        # Threads that have nothing to do with requests have some as well.
        assert handed < 250 if micros else handed > 400


def test_what_may_loop_is_never_taken_for_short(start, both):
    """However short it was: all others of the only serving thread would wait for it."""
    server = start(both, "--serving_threads=1")
    for _ in range(50):
        assert loop(server, 1).result(60)
    slow = loop(server, 10**9)
    half = request("half", inputs={"x": [1.0]})
    with channel(server) as other:
        for made in [server.channel, other]:
            assert stub(made).Predict(half, timeout=30)
            assert health(made, timeout=30)
    assert not slow.done()
    slow.cancel()


def v2_loop(n):
    """The request of loop(), by KServe's protocol."""
    request = service_pb2.ModelInferRequest(model_name="loop")
    word = request.inputs.add(name="word", datatype="BYTES", shape=[1])
    word.contents.bytes_contents.append(b"a")
    request.inputs.add(name="n", datatype="INT32").contents.int_contents.append(n)
    return request


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_slow_v2_requests_leave_others_their_turn(start, both, call):
    server = start(both, "--grpc_max_threads=2")
    asked, silent = (
        service_pb2_grpc.GRPCInferenceServiceStub(server.channel),
        threading.Event(),
    )
    if call == "ModelInfer":
        slow = [asked.ModelInfer.future(v2_loop(10**9)) for _ in range(300)]
    else:
        # They are silent after the first.
        def requests():
            yield v2_loop(10**9)
            silent.wait()

        slow = [asked.ModelStreamInfer(requests()) for _ in range(50)]
    with channel(server) as other:
        ready = service_pb2.ModelReadyRequest(name="half")
        half = service_pb2.ModelInferRequest(model_name="half")
        x = half.inputs.add(name="x", datatype="FP32", shape=[1])
        x.contents.fp32_contents.append(1)
        for made in [server.channel, other]:
            v2 = service_pb2_grpc.GRPCInferenceServiceStub(made)
            assert v2.ModelReady(ready, timeout=60).ready
            assert v2.ModelInfer(half, timeout=60).outputs
            assert stub(made).Predict(request("half", inputs={"x": [1.0]}), timeout=60)
        # A client that comes later need not wait for all of the first one's.
        v2 = service_pb2_grpc.GRPCInferenceServiceStub(other)
        assert v2.ModelInfer(v2_loop(1), timeout=60).outputs
    assert not any(each.done() for each in slow)
    for each in slow:
        each.cancel()
    silent.set()


def closed(*connections):
    """Whether the server ends them."""
    for connection in connections:
        connection.settimeout(60)
        try:
            while connection.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass


def connect(port, begin):
    connection = socket.create_connection(("localhost", port))
    connection.sendall(begin)
    return connection


HEAD = b"GET /v1/models/half HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("begin", [b"", HEAD, HEAD + b"\r\n"], ids=["", "1st", "2nd"])
def test_rest_heads_that_stall(start, base, begin):
    server = start(
        *only("half", base), "--max_connections=2", "--handshake_timeout_seconds=1"
    )
    stalled = [connect(server.rest_port, begin) for _ in range(2)]
    if begin.endswith(b"\r\n\r\n"):
        for connection in stalled:
            assert b" 200 " in connection.recv(1 << 16)
            connection.sendall(HEAD)
    server.rest("/v1/models/half")
    closed(*stalled)


def test_rest_connections_without_requests_end(start, base):
    server = start(*only("half", base), "--rest_api_idle_timeout_seconds=1")
    closed(connect(server.rest_port, HEAD + b"\r\n"))


@pytest.mark.parametrize("path", ["v1/models/half:predict", "v2/models/half/infer"])
def test_rest_bodies_that_stall(start, base, path):
    server = start(*only("half", base), "--rest_api_timeout_in_ms=500")
    head = f"POST /{path} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode()
    connection = connect(server.rest_port, head)
    answer = connection.recv(1 << 16)
    assert b" 504 " in answer and b"--rest_api_timeout_in_ms" in answer


@pytest.mark.parametrize("begin", [b"", PREFACE[:5], PREFACE, PREFACE + SETTINGS[:5]])
def test_grpc_handshakes_that_stall(start, base, begin):
    server = start(
        *only("half", base),
        "--grpc_channel_arguments=grpc.server_handshake_timeout_ms=1000",
        "--max_connections=2",
    )
    server.channel.close()
    stalled = [connect(server.port, begin) for _ in range(2)]
    with channel(server) as made:
        assert health(made, timeout=60, wait_for_ready=True)
    closed(*stalled)


def test_tls_handshakes_that_stall(start, base, certificates):
    server = start(
        *only("half", base),
        f"--ssl_config_file={ssl_config(base, certificates)}",
        "--handshake_timeout_seconds=1",
        credentials=grpc.ssl_channel_credentials(certificates["ca.pem"]),
    )
    closed(connect(server.port, b""))


def test_peers_that_are_gone_are_found(start, base):
    server = start(
        *only("half", base),
        "--grpc_channel_arguments=grpc.keepalive_time_ms=200,grpc.keepalive_timeout_ms=200",
    )
    # It answers no ping, in the middle of a request's headers or without a request.
    closed(
        *(
            connect(server.port, PREFACE + SETTINGS + more)
            for more in [b"", b"\0\0\x09\1"]
        )
    )
    assert health(server.channel)


def test_connections_have_an_age(start, both):
    server = start(
        both,
        "--grpc_channel_arguments=grpc.max_connection_age_ms=500,grpc.max_connection_age_grace_ms=500",
    )
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(
        health_pb2.HealthCheckRequest()
    )
    assert watch.next().status == health_pb2.HealthCheckResponse.SERVING
    fails(CODES.UNAVAILABLE, "", watch.next)
    for _ in range(20):
        assert health(server.channel)
        time.sleep(0.1)


def test_connections_without_requests_have_an_end(start, base):
    server = start(
        *only("half", base), "--grpc_channel_arguments=grpc.max_connection_idle_ms=500"
    )
    closed(connect(server.port, PREFACE + SETTINGS))


@pytest.mark.parametrize(
    "argument", ["grpc.keepalive_time_ms=0", "grpc.max_connection_age_ms=soon"]
)
def test_wrong_settings_are_named(start, base, tmp_path, argument):
    log = tmp_path / "log"
    server = start(
        *only("half", base), f"--grpc_channel_arguments={argument}", wait=False, log=log
    )
    assert server.process.wait(60) != 0
    assert argument in log.read_text()
