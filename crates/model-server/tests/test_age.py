"""Connections that end because of their age: no request that a client has begun is lost with them."""

import struct
import threading
import time

import grpc
import numpy as np
import pytest
from conftest import only
from test_connections import channel, connect, stub
from test_ending import OPEN, frame, headers, message
from test_grpc import request

DATA, HEADERS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
AGE = "--grpc_channel_arguments=grpc.max_connection_age_ms={0},grpc.max_connection_age_grace_ms=60000"


class Frames:
    """What the server sends."""

    def __init__(self, connection):
        self.stream = connection.makefile("rb")

    def next(self):
        head = self.stream.read(9)
        if not head:
            return None
        payload = self.stream.read(int.from_bytes(head[:3]))
        return head[3], head[4], int.from_bytes(head[5:9]), payload

    def until(self, kind, flags=0):
        """The next one of a kind, with these flags."""
        while frame := self.next():
            if frame[0] == kind and frame[1] & flags == flags:
                return frame
        raise AssertionError("the connection has ended")


@pytest.fixture
def aged(start, base):
    """A connection without a request whose end the server has announced, its frames, and the ping of that."""
    server = start(*only("half", base), AGE.format(500))
    connection = connect(server.port, OPEN)
    connection.settimeout(20)
    frames = Frames(connection)
    assert frames.until(GOAWAY)[3][:4] == b"\x7f\xff\xff\xff"
    _, _, _, ping = frames.until(PING)
    return connection, frames, frame(PING, ACK, 0, ping)


@pytest.mark.parametrize("cut", [0, 5, 16, 30])
def test_requests_that_cross_the_end(aged, cut):
    """gRPC's C++ library sends the pong before requests that it has begun already."""
    connection, frames, pong = aged
    window = frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 5))
    asked = pong + frame(HEADERS, END_HEADERS, 1, headers()) + window
    connection.sendall(asked[:cut])
    time.sleep(0.1)
    connection.sendall(asked[cut:])
    time.sleep(0.3)
    connection.sendall(frame(DATA, END_STREAM, 1, message(10)))
    assert frames.until(HEADERS)[2] == 1
    assert b"y" in frames.until(DATA)[3]
    assert frames.until(HEADERS, END_STREAM)[2] == 1
    # Then the end is near.
    assert frames.until(GOAWAY)[3] == struct.pack(">II", 1, 0)
    assert frames.next() is None


def test_the_end_is_no_reset(aged):
    """A reset would drop answers that are on their way."""
    connection, frames, pong = aged
    connection.sendall(pong)
    assert frames.until(GOAWAY)[3] == struct.pack(">II", 0, 0)
    for _ in range(10):
        connection.sendall(frame(PING, 0, 0, b"what for") * 1000)
        time.sleep(0.05)
    assert frames.next() is None


def test_rest_ends_without_a_reset(start, base):
    server = start(*only("half", base), "--max_request_bytes=1000")
    head = b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n"
    connection = connect(server.rest_port, head + b" " * 2000)
    connection.settimeout(20)
    answer = connection.recv(1 << 16)
    assert b" 429 " in answer
    for _ in range(10):
        connection.sendall(b" " * 100_000)
        time.sleep(0.05)
    while connection.recv(1 << 16):
        pass


def test_many_clients_meet_the_end(start, base):
    """What a client has sent is answered. The library tries requests again that it has not sent, as long as they are
    below 256 KB."""
    server = start(*only("half", base), AGE.format(200))
    sent = [request(inputs={"x": np.ones(n, np.float32)}) for n in (1, 1000, 50_000)]
    faults, over = [], time.monotonic() + 5

    def ask():
        with channel(server) as made:
            predict = stub(made).Predict
            while time.monotonic() < over:
                calls = [predict.future(sent[i % 3], timeout=60) for i in range(40)]
                faults.extend(
                    call.details()
                    for call in calls
                    if call.code() != grpc.StatusCode.OK
                )

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
