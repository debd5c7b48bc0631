"""SIGTERM: what clients have asked is answered, and clients that ask nothing, or never go on, are not waited for."""

import os
import socket
import ssl
import struct
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import only, ssl_config
from tensorflow_serving.apis import predict_pb2
from test_connections import HEAD, PREFACE, SETTINGS, connect
from test_operations import IN_FLIGHT, loop, wait_for_metric

PATH = b"/tensorflow.serving.PredictionService/Predict"
SIZE = 4 << 20
# How much longer than usual what is computed takes, as with AddressSanitizer.
SLOWER = int(os.environ.get("SLOWER", "1"))


def literal(name, value):
    """A header that is not in HPACK's tables."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def frame(kind, flags, stream, payload):
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def headers(*more):
    return b"".join(
        literal(name, value)
        for name, value in [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", PATH),
            (b":authority", b"localhost"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            *more,
        ]
    )


def message(size):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.ones(size, np.float32)))
    bytes_ = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(bytes_)) + bytes_


OPEN = PREFACE + SETTINGS
HALF_HEADERS = OPEN + frame(1, 4, 1, headers())[:30]
HALF_BODY = OPEN + frame(1, 4, 1, headers()) + frame(0, 0, 1, message(10)[:20])
# A REST request of which a part is missing.
REST_BODY = b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"


def ended(server, drain=20):
    """The seconds that ending takes; it loses nothing."""
    begun = time.monotonic()
    server.process.terminate()
    assert server.process.wait(60) == 0
    took = time.monotonic() - begun
    assert took < drain * SLOWER, took
    return took


@pytest.mark.parametrize(
    "begin", [b"", PREFACE[:5], OPEN, HALF_HEADERS, HALF_BODY], ids=range(5)
)
@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_grpc_clients_that_do_not_go_on(
    start, base, certificates, tmp_path, transport, begin
):
    path = tmp_path / "socket"
    flags, credentials = [f"--grpc_socket_path={path}"], None
    if transport == "tls":
        flags.append(f"--ssl_config_file={ssl_config(base, certificates)}")
        credentials = grpc.ssl_channel_credentials(certificates["ca.pem"])
    server = start(*only("half", base), *flags, credentials=credentials)
    server.channel.close()
    if transport == "unix":
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(str(path))
    else:
        silent = socket.create_connection(("localhost", server.port))
    if transport == "tls" and begin:
        context = ssl.create_default_context(cadata=certificates["ca.pem"].decode())
        context.set_alpn_protocols(["h2"])
        silent = context.wrap_socket(silent, server_hostname="localhost")
    silent.sendall(begin)
    time.sleep(0.5)
    ended(server)


@pytest.mark.parametrize("begin", [b"", HEAD + b"\r\n"], ids=["new", "idle"])
def test_rest_clients_without_a_request(start, base, begin):
    server = start(*only("half", base))
    server.channel.close()
    silent = connect(server.rest_port, begin)
    if begin:
        assert b" 200 " in silent.recv(1 << 16)
    time.sleep(0.5)
    ended(server)


@pytest.mark.parametrize(
    ("begin", "flag"),
    [
        (HEAD, "--handshake_timeout_seconds=3"),
        (REST_BODY, "--rest_api_timeout_in_ms=3000"),
    ],
    ids=["head", "body"],
)
def test_half_a_rest_request_has_its_own_time(start, base, begin, flag):
    server = start(*only("half", base), flag)
    server.channel.close()
    connect_idle = connect(server.rest_port, HEAD + b"\r\n")
    assert connect_idle.recv(1 << 16)
    stalls, goes_on = (connect(server.rest_port, begin) for _ in range(2))
    time.sleep(0.5)
    begun = time.monotonic()
    server.process.terminate()
    time.sleep(1)
    # The rest of it still comes in time.
    goes_on.sendall(b"\r\n" if begin == HEAD else b'"":1}   ')
    assert b"HTTP/1.1 " in goes_on.recv(1 << 16)
    assert server.process.wait(60) == 0
    assert 1 < time.monotonic() - begun < 15
    if begin == REST_BODY:
        assert b" 504 " in stalls.recv(1 << 16)


def test_half_a_grpc_request_has_its_deadline(start, base):
    server = start(*only("half", base))
    server.channel.close()
    body = message(10)
    timed = frame(1, 4, 1, headers((b"grpc-timeout", b"9S")))
    silent = connect(server.port, OPEN + timed + frame(0, 0, 1, body[:20]))
    time.sleep(0.5)
    assert 6 < ended(server) < 15
    silent.close()


def test_the_rest_of_a_grpc_request_is_answered(start, base):
    server = start(*only("half", base))
    server.channel.close()
    slow = connect(server.port, HALF_BODY)
    time.sleep(0.5)
    server.process.terminate()
    time.sleep(2)
    slow.sendall(frame(0, 1, 1, message(10)[20:]))
    slow.settimeout(20)
    answer = b""
    while got := slow.recv(1 << 16):
        answer += got
    assert b"grpc-status" in answer or b"y" in answer
    assert server.process.wait(60) == 0


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_answers_that_nobody_reads(start, base, protocol):
    """They are given up after some seconds."""
    server = start(*only("half", base))
    server.channel.close()
    if protocol == "rest":
        body = b'{"instances": [' + b",".join([b"1.5"] * SIZE) + b"]}"
        head = f"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        stalls = connect(server.rest_port, head.encode() + body)
    else:
        body = message(SIZE)
        stalls = connect(server.port, OPEN)
        window = frame(8, 0, 0, struct.pack(">I", 1 << 30))
        frames = [body[i : i + 16384] for i in range(0, len(body), 16384)]
        stalls.sendall(window + frame(1, 4, 1, headers()))
        # As far as the server's window goes, which it opens as it reads.
        for i, part in enumerate(frames):
            stalls.sendall(frame(0, i == len(frames) - 1, 1, part))
    time.sleep(3)
    assert ended(server) < 12 * SLOWER
    stalls.close()


def test_answers_that_are_read_slowly(start, base):
    server = start(*only("half", base))
    server.channel.close()
    body = b'{"instances": [' + b",".join([b"1.5"] * SIZE) + b"]}"
    head = (
        f"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    slow.connect(("localhost", server.rest_port))
    slow.sendall(head.encode() + body)
    answer = slow.recv(1 << 16)
    server.process.terminate()
    slow.settimeout(30)
    begun = time.monotonic()
    while got := slow.recv(1 << 20):
        answer += got
        # Longer than a client may be silent.
        if time.monotonic() - begun < 7:
            time.sleep(1)
    assert answer.endswith(b"]\n}") and answer.count(b"2.75") == SIZE
    assert server.process.wait(60) == 0


def test_requests_that_run_are_not_given_up_for_others(start, base, metrics):
    """A slow one is answered, whoever is silent beside it."""
    server = start(*only("loop", base), metrics, "--drain_seconds=100")
    loop(server, 3).result()
    silent = [
        connect(server.port, OPEN),
        connect(server.port, HALF_BODY),
        connect(server.rest_port, HEAD),
    ]
    slow = loop(server, 4_000_000)
    wait_for_metric(server, IN_FLIGHT, 1)
    server.process.terminate()
    assert slow.result().outputs
    assert server.process.wait(60) == 0
    assert len(silent) == 3


def test_lost_requests_are_a_failure_that_is_told(start, base, tmp_path):
    log = tmp_path / "log"
    server = start(*only("loop", base), "--drain_seconds=1", log=log)
    lost = loop(server, 2_000_000_000)
    time.sleep(1)
    server.process.terminate()
    assert server.process.wait(60) == 1
    assert lost.code() == grpc.StatusCode.UNAVAILABLE
    assert "1 requests are not answered after 1 s" in log.read_text()


def test_what_never_comes_in_full_is_not_lost(start, base):
    server = start(*only("half", base), "--drain_seconds=1")
    server.channel.close()
    silent = [connect(server.rest_port, REST_BODY), connect(server.port, HALF_BODY)]
    time.sleep(0.5)
    ended(server)
    assert len(silent) == 2


def test_time_counts_from_the_first_byte(start, base):
    server = start(*only("half", base), "--rest_api_timeout_in_ms=4000")
    head, body = REST_BODY[:-1].split(b"\r\n", 1)
    slow = connect(server.rest_port, head + b"\r\n")
    begun = time.monotonic()
    time.sleep(3.5)
    slow.sendall(body + b"{")
    assert b" 504 " in slow.recv(1 << 16)
    assert 3.5 < time.monotonic() - begun < 7
    # The next request on a connection has a time of its own.
    other = connect(server.rest_port, HEAD + b"\r\n")
    assert b" 200 " in other.recv(1 << 16)
    time.sleep(4.5)
    other.sendall(HEAD + b"\r\n")
    assert b" 200 " in other.recv(1 << 16)
