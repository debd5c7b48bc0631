"""Everything at once for a long time: storage that comes and goes, models that break, clients that are slow,
hostile, short of time or gone. No good request is lost, none is wrong, and nothing grows.

`make soak-server MINUTES=30`, with `CLIENTS=64` for more of each kind; for some seconds in every run of the tests.
"""

import collections
import os
import pathlib
import random
import shutil
import socket
import struct
import threading
import time

import grpc
import numpy as np
import pytest
from conftest import MODELS, UNLIMITED, place
from google.protobuf import text_format
from tensorflow_serving.apis import (
    model_management_pb2,
    prediction_service_pb2_grpc,
)
from test_grpc import request, values
from test_models import config, model
from test_operations import loop
from tritonclient.grpc import service_pb2, service_pb2_grpc

SECONDS = float(os.environ.get("MINUTES", 0.15)) * 60
CLIENTS = int(os.environ.get("CLIENTS") or 0)
SEED = int(os.environ.get("SOAK_SEED", time.time()))
# Versions of "half" are one or the other by turns.
MODEL_OF = {0: "half_plus", 1: "half_plus_three"}
BIASES = {0: 2, 1: 3}
CODES = grpc.StatusCode


class Soak:
    """Threads that do something again and again until the time is over."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.over = threading.Event()
        self.done, self.faults = collections.Counter(), []
        self.threads = []

    def start(self, what, number=1, pause=0.0):
        def run(seed):
            chance = random.Random(f"{SEED} {what.__name__} {seed}")
            try:
                with Client(self.server) as client:
                    while not self.over.wait(pause):
                        what(self, client, chance)
                        self.done[what.__name__] += 1
            except Exception as error:
                self.faults.append(f"{what.__name__}: {error!r}")
                self.over.set()

        self.threads += [threading.Thread(target=run, args=(i,)) for i in range(number)]

    def run(self, seconds):
        for thread in self.threads:
            thread.start()
        looks, end = [], time.monotonic() + seconds
        while not self.over.wait(min(max(seconds / 30, 0.5), 20)):
            looks.append(used(self.server))
            done = ", ".join(f"{n} {what}" for what, n in sorted(self.done.items()))
            print(f"{looks[-1]}; {done}", flush=True)
            if time.monotonic() > end:
                self.over.set()
        for thread in self.threads:
            thread.join()
        return looks

    def sometimes_waits(self, chance, longest=0.5):
        self.over.wait(chance.random() * longest)


class Client:
    """Connections of its own."""

    def __init__(self, server):
        options = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
        target = f"localhost:{server.port}"
        self.channel = grpc.insecure_channel(target, options)
        self.predict = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.v2 = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


Used = collections.namedtuple("Used", "resident threads descriptors")


def used(server):
    """MiB of memory, threads and descriptors of the server."""
    process = pathlib.Path(f"/proc/{server.process.pid}")
    lines = (line.split() for line in (process / "status").read_text().splitlines())
    status = {line[0]: line[1] for line in lines if len(line) > 1}
    return Used(
        int(status["VmRSS:"]) >> 10,
        int(status["Threads:"]),
        len(list((process / "fd").iterdir())),
    )


# Good clients. Their deadline is far away even on a busy machine: a request that meets it is lost.


def right(soak, x, y, version=None):
    allowed = BIASES.values() if version is None else [BIASES[version % 2]]
    if not any(np.array_equal(y, x / 2 + bias) for bias in allowed):
        raise AssertionError(f"{x} gives {y} by version {version}")


def numbers(chance):
    rows = chance.choice([1, 1, 1, 2, 7, 300])
    return np.array([chance.randrange(1 << 16) for _ in range(rows)], np.float32)


def good_grpc(soak, client, chance):
    x = numbers(chance)
    zipped = chance.choice([grpc.Compression.NoCompression, grpc.Compression.Gzip])
    answer = client.predict.Predict(
        request(inputs={"x": x}), timeout=60, compression=zipped
    )
    right(soak, x, values(answer.outputs["y"]), answer.model_spec.version.value)


def good_streams(soak, client, chance):
    xs = [numbers(chance) for _ in range(16)]
    calls = [
        client.predict.Predict.future(request(inputs={"x": x}), timeout=60) for x in xs
    ]
    for x, call in zip(xs, calls, strict=True):
        answer = call.result()
        right(soak, x, values(answer.outputs["y"]), answer.model_spec.version.value)


def good_v2(soak, client, chance):
    x = numbers(chance)
    asked = service_pb2.ModelInferRequest(model_name="half")
    asked.inputs.add(name="x", datatype="FP32", shape=[len(x)])
    asked.raw_input_contents.append(x.tobytes())
    answer = client.v2.ModelInfer(asked, timeout=60)
    y = np.frombuffer(answer.raw_output_contents[0], np.float32)
    right(soak, x, y, int(answer.model_version))


def good_rest(soak, client, chance):
    x = numbers(chance)
    path = "/v1/models/half:predict"
    answer = soak.server.rest(path, {"instances": x.tolist()})
    right(soak, x, np.array(answer["predictions"], np.float32))


def good_comes_and_goes(soak, client, chance):
    with Client(soak.server) as other:
        good_grpc(soak, other, chance)


# Clients that others must not suffer from: what becomes of their requests is all the same.


def short_of_time(soak, client, chance):
    x = np.ones(chance.choice([1, 1000, 100_000]), np.float32)
    calls = [
        client.predict.Predict.future(request(inputs={"x": x}), timeout=0.002)
        for _ in range(40)
    ]
    # A client of gRPC that hears that its connection ends tries what it has not sent again, but not what is larger than
    # 256 KB.
    may_meet_the_end = x.nbytes > 256 << 10
    for call in calls:
        if call.code() == CODES.UNAVAILABLE and may_meet_the_end:
            assert "GOAWAY received" in call.details(), call.details()
        else:
            assert call.code() in (CODES.OK, CODES.DEADLINE_EXCEEDED), call.details()
    soak.sometimes_waits(chance)


def cancelling(soak, client, chance):
    calls = [loop(client, 10**8) for _ in range(8)]
    soak.sometimes_waits(chance)
    for call in calls:
        call.cancel()


def refused(soak, client, chance):
    wrong = chance.choice(
        [
            request(inputs={"z": [1.0]}),
            request(inputs={"x": ["text"]}),
            request(model="nowhere", inputs={"x": [1.0]}),
            request(inputs={"x": [1.0]}, outputs=["none"]),
            request(model="broken", inputs={"x": [1.0]}),
            request(inputs={"x": np.ones(2_000_000, np.float32)}),
        ]
    )
    try:
        client.predict.Predict(wrong, timeout=60)
    except grpc.RpcError as error:
        expected = {CODES.INVALID_ARGUMENT, CODES.NOT_FOUND, CODES.OUT_OF_RANGE}
        if error.code() not in expected | {CODES.UNAVAILABLE}:
            raise
    else:
        raise AssertionError("a wrong request was answered")
    soak.sometimes_waits(chance)


def hostile_json(soak, client, chance):
    body = chance.choice(
        [
            b"[" * 100_000,
            b'{"instances":' + b"[[]," * 20_000,
            b'{"instances": [1e999, "\\ud800", nan]}',
            b'{"instances": [{"x": 1}, {"y": 2}]}',
            b'\xff\xfe{"inputs": {}}',
        ]
    )
    code, _, _ = soak.server.http("POST", "/v1/models/half:predict", body)
    assert 400 <= code < 500
    soak.sometimes_waits(chance)


def half_a_request(soak, client, chance):
    """Begins in any way, stays for a moment, and goes in any way."""
    port = chance.choice([soak.server.port, soak.server.rest_port])
    begin = chance.choice(
        [
            b"",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" * 50,
            b"POST /v1/models/half:predict HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
            b"GET / HTTP/1.1\r\nX: " + b"a" * 5000,
            chance.randbytes(chance.randrange(1, 300)),
        ]
    )
    with socket.create_connection(("localhost", port)) as made:
        if chance.random() < 0.5:
            # Closing resets.
            linger = struct.pack("ii", 1, 0)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        made.sendall(begin)
        soak.sometimes_waits(chance)


# Storage.


def new_versions(soak, client, chance):
    """The next version, half of it first at times; the ones before go when it serves."""
    base = soak.folder / "half"
    number = max(int(path.name) for path in base.glob("[0-9]*")) + 1
    source = MODELS / MODEL_OF[number % 2]
    if chance.random() < 0.5:
        half = base / f".{number}"
        shutil.copytree(source, half)
        data = half / "variables/variables.data-00000-of-00001"
        what = chance.choice(["variables", "data", "index", "graph", "all"])
        if what == "variables":
            shutil.rmtree(half / "variables")
        elif what == "data":
            os.truncate(data, 3)
        elif what == "index":
            (half / "variables/variables.index").unlink()
        elif what == "graph":
            (half / "saved_model.pb").unlink()
        else:
            shutil.rmtree(half)
            half.mkdir()
        half.rename(base / str(number))
        soak.sometimes_waits(chance, 2)
        shutil.copytree(source, base / str(number), dirs_exist_ok=True)
    else:
        place(base, number, MODEL_OF[number % 2])
    end = time.monotonic() + 60
    while soak.server.status("half").get(number) != "AVAILABLE":
        assert time.monotonic() < end, soak.server.status("half")
        if soak.over.wait(0.1):
            return
    for path in base.glob("[0-9]*"):
        if int(path.name) < number - 1:
            shutil.rmtree(path)
    # The storage is away for a while.
    if chance.random() < 0.5:
        away = soak.folder / "away"
        base.rename(away)
        if chance.random() < 0.5:
            base.mkdir()
            soak.sometimes_waits(chance, 3)
            base.rmdir()
        else:
            soak.sometimes_waits(chance, 3)
        away.rename(base)


def reloads(soak, client, chance):
    """Other models come, broken ones too, and go."""
    models = [
        model(name, soak.folder / name)
        for name in ["loop", "broken", "other", "missing"]
        if name == "loop" or chance.random() < 0.5
    ]
    text = config(model("half", soak.folder / "half"), *models)
    reload = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text, reload.config)
    try:
        soak.server.models.HandleReloadConfigRequest(reload, timeout=5)
    except grpc.RpcError as error:
        assert error.code() in (CODES.DEADLINE_EXCEEDED, CODES.UNKNOWN), error
    soak.sometimes_waits(chance, 3)


# How many threads do each, and for how many seconds each waits before it does so again.
OF_CLIENTS = [
    (good_grpc, 2, 0.01),
    (good_streams, 1, 0.05),
    (good_v2, 1, 0.02),
    (good_rest, 2, 0.02),
    (good_comes_and_goes, 1, 0.05),
    (short_of_time, 1, 0),
    (cancelling, 1, 0),
    (refused, 1, 0),
    (hostile_json, 1, 0),
    (half_a_request, 4, 0),
]
FEWEST = sum(number for _, number, _ in OF_CLIENTS)
TIMES = max(1, round(CLIENTS / FEWEST))
THREADS = [
    *((what, number * TIMES, pause) for what, number, pause in OF_CLIENTS),
    (new_versions, 1, 0),
    (reloads, 1, 0),
]


@pytest.mark.parametrize("batching", [False, True])
def test_soak(start, tmp_path, batching, capsys):
    place(tmp_path / "half", 1, MODEL_OF[1])
    place(tmp_path / "loop", 1, "tf1_saved_model")
    place(tmp_path / "other", 1, "every_type")
    place(tmp_path / "broken", 1, "half_plus")
    shutil.rmtree(tmp_path / "broken/1/variables")
    file = tmp_path / "models.config"
    file.write_text(
        config(*(model(name, tmp_path / name) for name in ["half", "loop"]))
    )
    flags = [
        f"--model_config_file={file}",
        "--session_num_per_group=2",
        "--file_system_poll_wait_seconds=1",
        "--load_retry_interval_micros=2000000",
        "--max_request_bytes=4000000",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=20000,"
        "grpc.max_connection_age_grace_ms=60000",
    ]
    if batching:
        parameters = tmp_path / "batching"
        parameters.write_text(
            "max_batch_size { value: 100000 } max_execution_batch_size { value: 1024 } "
            "enable_large_batch_splitting { value: true } batch_timeout_micros { value: 500 } "
            "max_enqueued_batches { value: 1000000 }"
        )
        flags += ["--enable_batching", f"--batching_parameters_file={parameters}"]
    server = start(*flags)
    soak = Soak(server, tmp_path)
    for what, number, pause in THREADS:
        soak.start(what, number, pause)
    with capsys.disabled():
        print(f"\nseed {SEED}")
        looks = soak.run(SECONDS / 2)
    assert not soak.faults
    assert set(soak.done) == {what.__name__ for what, _, _ in THREADS}
    # What the first third took is enough for the others.
    third = len(looks) // 3
    if SECONDS > 300:
        first, rest = looks[third // 2 : third], looks[third:]
        for field, slack in [("resident", 30), ("threads", 20), ("descriptors", 40)]:
            most = max(getattr(look, field) for look in first)
            grown = [getattr(look, field) for look in rest[-third:]]
            assert np.median(grown) <= most + slack, field
    assert server.stop() == 0
