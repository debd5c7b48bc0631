"""What the server prints and logs."""

import json
import os
import re
import signal
import subprocess

import grpc
import pytest
from conftest import SERVER, only
from tensorflow_serving.apis import prediction_service_pb2_grpc
from test_grpc import predict, request
from test_models import bias
from test_operations import batching, metric


@pytest.fixture
def talkative(monkeypatch):
    """TensorFlow says all that it does where nobody asks it not to."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)


@pytest.mark.parametrize(
    ("flag", "begins"),
    [("--help", b"Serves"), ("--version", b"Session group model server: ")],
)
def test_help_and_version_print_nothing_else(talkative, flag, begins):
    printed = subprocess.run([SERVER, flag], capture_output=True, timeout=60)
    assert (printed.returncode, printed.stderr) == (0, b"")
    assert printed.stdout.startswith(begins)


def test_mistakes_are_printed_alone_beside_these(talkative):
    command = [SERVER, "--log_json", "--model_bas_path=/x"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert printed.returncode == 2
    assert printed.stderr.startswith("error: unexpected argument '--model_bas_path'")


def test_without_json_all_of_it_is_printed_as_it_is(talkative):
    command = [SERVER, "--log_json=false", "--model_base_path=no"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Failed to start server" in printed.stderr
    assert "oneDNN" in printed.stderr or "cpu_feature_guard" in printed.stderr


def test_all_lines_are_json(talkative, start, base, tmp_path):
    """Those of TensorFlow, from its first to its last, and those of the group, with its model."""
    log = tmp_path / "log"
    server = start(*only("half", base), "--log_json", log=log)
    assert bias(server) == 2
    assert server.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    targets = {line["target"].split("::")[0] for line in lines}
    assert targets >= {"tensorflow", "session_group_server"}
    text = r"session group \d+ \(model_name half, version 1\): 1 sessions, "
    assert any(re.match(text, line["message"]) for line in lines)
    assert any("oneDNN" in line["message"] for line in lines)
    assert all("timestamp" in line and "level" in line for line in lines)


def test_a_start_that_fails_says_so_as_json(talkative):
    command = [SERVER, "--log_json", "--model_base_path=no"]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 255
    last = json.loads(failed.stderr.splitlines()[-1])
    assert last["message"].startswith("Failed to start server. Error:")


def test_the_reason_of_an_abort_is_logged(talkative, start, base, tmp_path):
    log = tmp_path / "log"
    server = start(*only("half", base), "--log_json", log=log)
    for _ in range(100):
        # As what aborts does, it writes first.
        with open(f"/proc/{server.process.pid}/fd/2", "w") as stderr:
            stderr.write("a reason\n")
    os.kill(server.process.pid, signal.SIGABRT)
    assert server.process.wait(60) == -signal.SIGABRT
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["message"] for line in lines].count("a reason") == 100


def access(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["target"] == "access"]


def test_the_access_log(start, base, tmp_path):
    log = tmp_path / "access.log"
    server = start(
        *only("types", base),
        "--access_log",
        "--log_json",
        f"--grpc_socket_path={tmp_path / 'socket'}",
        log=log,
    )
    predict(server, "types", "float32", {"x": [1.0]})
    path = "/v1/models/types/versions/1:predict"
    body = {"signature_name": "float32", "inputs": [1.0]}
    assert server.http("POST", path, body)[0] == 200
    server.http("POST", path, {"signature_name": "no", "inputs": [1.0]})
    server.http("POST", "/v1/models/no:predict", {"instances": [1]})
    server.stop()
    lines = access(log)
    keys = ["protocol", "api", "model", "version", "signature", "status"]
    assert [tuple(line.get(key) for key in keys) for line in lines] == [
        ("GRPC", "Predict", "types", 1, "float32", "OK"),
        ("REST", "predict", "types", 1, "float32", "OK"),
        ("REST", "predict", "types", 1, "no", "INVALID_ARGUMENT"),
        ("REST", "predict", "no", None, None, "NOT_FOUND"),
    ]
    for line in lines:
        host, port = line["peer"].rsplit(":", 1)
        assert host in ("127.0.0.1", "[::1]") and int(port) > 0
        assert line["micros"] > 0


def test_the_default_signature_and_unix_peers(start, base, tmp_path):
    log, path = tmp_path / "access.log", tmp_path / "socket"
    flags = ["--access_log", "--log_json", f"--grpc_socket_path={path}"]
    server = start(*only("half", base), *flags, log=log)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request("half", inputs={"x": [1.0]}))
    server.stop()
    (line,) = access(log)
    assert (line["peer"], line["signature"]) == ("unix", "serving_default")


def test_head_is_get_without_a_body(half):
    for path in [
        "/v1/models/half",
        "/v1/models/half/metadata",
        "/v1/models/no",
        "/monitoring/prometheus/metrics",
    ]:
        code, headers, body = half.http("GET", path)
        head_code, head_headers, nothing = half.http("HEAD", path)
        assert (head_code, nothing) == (code, b"")
        assert head_headers["Content-Type"] == headers["Content-Type"]
        if "monitoring" not in path:
            assert int(head_headers["Content-Length"]) == len(body)
    assert half.http("HEAD", "/v1/models/half:predict")[0] == 400


def test_time_in_the_model_is_of_what_ran(start, base, tmp_path, metrics):
    """Neither of what is wrong nor of what no batch took in time."""
    text = "max_batch_size { value: 8 } batch_timeout_micros { value: 1000000 }"
    server = start(*only("half", base), *batching(tmp_path, text), metrics)
    count = ":tensorflow:serving:runtime_latency_count"
    assert bias(server) == 2
    assert metric(server, count) == 1
    half = request("half", inputs={"x": [1.0]})
    for ask in [
        lambda: predict(server, inputs={"z": [1.0]}),
        lambda: predict(server, inputs={"x": [1.0] * 9}),
        lambda: predict(server, signature="no", inputs={"x": [1.0]}),
        lambda: predict(server, "no", inputs={"x": [1.0]}),
        lambda: server.predict.Predict(half, timeout=0.3),
    ]:
        with pytest.raises(grpc.RpcError):
            ask()
    for path, body in [
        ("half", b"{"),
        ("half", b'{"instances": ["x"]}'),
        ("no", b"{}"),
    ]:
        assert server.http("POST", f"/v1/models/{path}:predict", body)[0] >= 400
    # What no batch took has left it by then.
    assert bias(server) == 2
    assert metric(server, count) == 2
