"""Starts the server that the tests ask."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import grpc
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

ROOT = pathlib.Path(__file__).parents[3]
MODELS = ROOT / "models/build"
SERVER = pathlib.Path(
    os.environ.get("SERVER", ROOT / "target/release/session_group_model_server")
)
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def place(base, version, model):
    """Copies a model to be a version, which appears at once."""
    base.mkdir(parents=True, exist_ok=True)
    hidden = base / f".{version}"
    shutil.copytree(MODELS / model, hidden)
    hidden.rename(base / str(version))


class Server:
    """A server with its ports, and clients for it."""

    def __init__(
        self, *flags, log=None, wait=True, credentials=None, through=(), env=None
    ):
        """`through` is a command that runs another one; `env` is added to this process's."""
        self.port, self.rest_port = free_port(), free_port()
        ports = [f"--port={self.port}", f"--rest_api_port={self.rest_port}"]
        self.log = open(log, "w") if log else None
        self.process = subprocess.Popen(
            [*through, SERVER, *ports, *flags],
            stderr=self.log or subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        target = f"localhost:{self.port}"
        if credentials:
            self.channel = grpc.secure_channel(target, credentials, UNLIMITED)
        else:
            self.channel = grpc.insecure_channel(target, UNLIMITED)
        self.predict = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        if wait:
            grpc.channel_ready_future(self.channel).result(60)

    def wait_for_port(self, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return socket.create_connection(("localhost", self.port)).close()
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None
                time.sleep(0.05)

    def status(self, name):
        """States of the versions of a model."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        state = get_model_status_pb2.ModelVersionStatus.State.Name
        found = self.models.GetModelStatus(request).model_version_status
        return {status.version: state(status.state) for status in found}

    def wait_for(self, name, states, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            try:
                now = self.status(name)
            except grpc.RpcError as error:
                now = error
            if now == states:
                return
            assert time.monotonic() < deadline, f"{now}, not {states}"
            time.sleep(0.05)

    def http(self, method, path, body=None, headers=None):
        """Code, headers and body of an answer; the body is sent as it is, or as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        url = f"http://localhost:{self.rest_port}{path}"
        request = urllib.request.Request(url, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def rest(self, path, body=None):
        """The JSON of an answer that is OK."""
        code, _, answer = self.http("POST" if body is not None else "GET", path, body)
        assert code == 200, answer
        return json.loads(answer)

    def stop(self, signal_number=signal.SIGTERM):
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        code = self.process.wait(60)
        if self.log:
            self.log.close()
        return code


@pytest.fixture
def start(tmp_path):
    """Starts servers, and ends them with the test."""
    started = []

    def begin(*flags, **options):
        options.setdefault("log", tmp_path / f"server{len(started)}.log")
        server = Server(*flags, **options)
        started.append(server)
        return server

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.stop()
    for log in tmp_path.glob("server*.log"):
        sys.stderr.write(log.read_text()[-5000:])


@pytest.fixture(scope="session")
def half(tmp_path_factory):
    """A server with the model "half", y = x / 2 + 2, and those of all types."""
    base = tmp_path_factory.mktemp("models")
    for name, model in [
        ("half", "half_plus"),
        ("types", "every_type"),
        ("wide", "wide_deep"),
    ]:
        place(base / name, 1, model)
    config = base / "models.config"
    config.write_text(
        "model_config_list {"
        + "".join(
            f'config {{ name: "{name}" base_path: "{base / name}" model_platform: "tensorflow" }}'
            for name in ["half", "types", "wide"]
        )
        + "}"
    )
    monitoring = base / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    server = Server(
        f"--model_config_file={config}",
        "--session_num_per_group=2",
        f"--monitoring_config_file={monitoring}",
        log=base / "server.log",
    )
    yield server
    assert server.stop() == 0


@pytest.fixture
def base(tmp_path):
    place(tmp_path / "half", 1, "half_plus")
    place(tmp_path / "loop", 1, "tf1_saved_model")
    place(tmp_path / "types", 1, "every_type")
    return tmp_path


@pytest.fixture
def metrics(tmp_path):
    """The flag for metrics at /metrics."""
    file = tmp_path / "monitoring"
    file.write_text('prometheus_config { enable: true path: "/metrics" }')
    return f"--monitoring_config_file={file}"


def only(name, base):
    return [f"--model_name={name}", f"--model_base_path={base / name}"]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority, and a server's and a client's keys and certificates."""
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*arguments):
        subprocess.run(
            ["openssl", *arguments], cwd=folder, check=True, capture_output=True
        )

    openssl(
        *"req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2".split(),
        "-subj",
        "/CN=ca",
    )
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    for name in ["server", "client"]:
        request = f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr"
        openssl(*request.split(), "-subj", f"/CN={name}")
        sign = f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem"
        openssl(*sign.split(), "-days", "2", "-extfile", "names")
    # Without extensions, a certificate is of version 1.
    openssl(*f"{sign.replace('client.pem', 'old.pem')} -days 2".split())
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def ssl_config(folder, certificates, is_mutual=False):
    """A file with an SSLConfig."""
    entries = {"server_key": "server.key", "server_cert": "server.pem"}
    if is_mutual:
        entries["custom_ca"] = "ca.pem"
    quoted = {
        field: json.dumps(certificates[name].decode())
        for field, name in entries.items()
    }
    file = folder / "ssl"
    text = "".join(f"{field}: {value} " for field, value in quoted.items())
    file.write_text(text + f"client_verify: {str(is_mutual).lower()}")
    return file
