"""Versions, labels, configuration, warm-up: what is served when."""

import pathlib
import re
import shutil
import struct
import threading
import time

import grpc
import pytest
import tensorflow as tf
from conftest import place
from tensorflow_serving.apis import (
    classification_pb2,
    model_management_pb2,
    predict_pb2,
    prediction_log_pb2,
)
from test_grpc import fails, predict, values

CODES = grpc.StatusCode


def model(name, base, policy="", labels=()):
    text = f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" '
    text += f"model_version_policy {{ {policy} }} " if policy else ""
    for label, version in labels:
        text += f'version_labels {{ key: "{label}" value: {version} }} '
    return text + "}"


def config(*models):
    return f"model_config_list {{ {' '.join(models)} }}"


def bias(server, **options):
    return values(predict(server, inputs={"x": [0.0]}, **options).outputs["y"])[0]


class Clients:
    """Threads that ask without end, over gRPC and REST; every answer must be right."""

    def __init__(self, server, right, number=8):
        self.server, self.right, self.over = server, right, False
        self.answers, self.wrong = [], []
        self.threads = [
            threading.Thread(target=self.ask, args=(i % 4 == 0,)) for i in range(number)
        ]
        for thread in self.threads:
            thread.start()

    def ask(self, rest):
        while not self.over:
            try:
                if rest:
                    answer = self.server.rest(
                        "/v1/models/half:predict", {"instances": [0]}
                    )
                    answer = answer["predictions"][0]
                else:
                    answer = bias(self.server)
            except Exception as error:
                self.wrong.append(error)
                return
            if answer not in self.right:
                self.wrong.append(answer)
            self.answers.append(answer)

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()
        assert self.wrong == []


def test_versions_are_swapped_under_load(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    server = start(
        "--model_name=half", f"--model_base_path={base}", "--session_num_per_group=2"
    )
    clients = Clients(server, {2, 3})
    for version in range(2, 12):
        place(base, version, "half_plus_three" if version % 2 == 0 else "half_plus")
        states = {known: "END" for known in range(1, version)}
        server.wait_for("half", {**states, version: "AVAILABLE"})
    clients.stop()
    assert len(clients.answers) > 100 and set(clients.answers) == {2, 3}
    assert bias(server, version=11) == 2
    # Nothing is left of the others: threads are named after their group.
    tasks = pathlib.Path(f"/proc/{server.process.pid}/task").glob("*/comm")
    groups = {re.match(r"sg\d+\.", task.read_text()) for task in tasks}
    assert len({group.group() for group in groups if group}) == 1
    text = "Servable not found for request: Specific(half, 10)"
    fails(CODES.NOT_FOUND, text, lambda: bias(server, version=10))


def test_a_broken_version_leaves_the_good_one(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    server = start(
        "--model_name=half",
        f"--model_base_path={base}",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=10000",
    )
    place(base, 2, "half_plus_three")
    server.wait_for("half", {1: "END", 2: "AVAILABLE"})
    (base / "3").mkdir()
    (base / "3/saved_model.pb").write_bytes(b"no model")
    server.wait_for("half", {1: "END", 2: "AVAILABLE", 3: "END"})
    assert bias(server) == 3
    found = server.rest("/v1/models/half/versions/3")["model_version_status"][0][
        "status"
    ]
    assert found["error_code"] != "OK" and "SavedModel" in found["error_message"]
    # It is tried again once it has been away, and an older one serves until then.
    shutil.rmtree(base / "3")
    time.sleep(1.5)
    place(base, 3, "half_plus")
    server.wait_for("half", {1: "END", 2: "END", 3: "AVAILABLE"})
    # Back to an older one.
    shutil.rmtree(base / "3")
    server.wait_for("half", {1: "END", 2: "AVAILABLE", 3: "END"})
    assert bias(server) == 3


def test_a_server_without_a_good_version_does_not_start(start, tmp_path):
    (tmp_path / "half/1").mkdir(parents=True)
    log = tmp_path / "log"
    flags = [
        "--model_name=half",
        f"--model_base_path={tmp_path / 'half'}",
        "--max_num_load_retries=0",
    ]
    server = start(*flags, wait=False, log=log)
    assert server.process.wait(60) == 255
    assert "1 model(s) did not become available" in log.read_text()


def test_policies_and_labels(start, tmp_path):
    base = tmp_path / "half"
    for version in [1, 2, 3]:
        place(base, version, "half_plus_three" if version == 2 else "half_plus")
    file = tmp_path / "config"
    labels = [("stable", 2), ("canary", 3)]
    file.write_text(
        config(model("half", base, "specific { versions: 2 versions: 3 }", labels))
    )
    server = start(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"
    )
    assert server.status("half") == {2: "AVAILABLE", 3: "AVAILABLE"}

    def by_label(label):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.version_label = "half", label
        request.inputs["x"].CopyFrom(tf.make_tensor_proto([0.0]))
        return server.predict.Predict(request)

    assert values(by_label("stable").outputs["y"])[0] == 3
    assert by_label("canary").model_spec.version.value == 3
    text = "Unrecognized servable version label: no"
    fails(CODES.INVALID_ARGUMENT, text, lambda: by_label("no"))
    answer = server.rest("/v1/models/half/labels/stable:predict", {"instances": [0]})
    assert answer == {"predictions": [3]}

    # The file changes: all versions, and another label.
    file.write_text(config(model("half", base, "all {}", [("stable", 3)])))
    server.wait_for("half", {1: "AVAILABLE", 2: "AVAILABLE", 3: "AVAILABLE"})
    deadline = time.monotonic() + 20
    while by_label("stable").model_spec.version.value != 3:
        assert time.monotonic() < deadline
    # A label whose version does not serve yet gets it once that does.
    file.write_text(config(model("half", base, "all {}", [("stable", 9)])))
    time.sleep(1.5)
    assert by_label("stable").model_spec.version.value == 3
    place(base, 9, "half_plus")
    deadline = time.monotonic() + 20
    while by_label("stable").model_spec.version.value != 9:
        assert time.monotonic() < deadline
    file.write_text("nonsense {")
    time.sleep(1.5)
    assert bias(server) == 2


def reload(server, text, timeout=60):
    request = model_management_pb2.ReloadConfigRequest()
    from google.protobuf import text_format

    text_format.Parse(text, request.config)
    return server.models.HandleReloadConfigRequest(request, timeout=timeout)


def test_reload(start, tmp_path):
    base, other = tmp_path / "half", tmp_path / "other"
    place(base, 1, "half_plus")
    place(other, 5, "half_plus_three")
    server = start(
        "--model_name=half", f"--model_base_path={base}", "--max_num_load_retries=0"
    )
    assert (
        reload(
            server, config(model("half", base), model("new", other))
        ).status.error_code
        == 0
    )
    assert bias(server, model="new") == 3
    assert bias(server) == 2
    for text, code, message in [
        (
            config(model("a", base), model("a", base)),
            "INVALID_ARGUMENT",
            "Illegal to list model a multiple",
        ),
        (
            config(model("a", "relative")),
            "INVALID_ARGUMENT",
            "to have an absolute path",
        ),
        (
            config(model("half", base, labels=[("x", 8)])),
            "FAILED_PRECONDITION",
            "assign label to version 8 of model half",
        ),
        ("", "INVALID_ARGUMENT", "Only ModelConfigList is currently supported"),
        (
            f'model_config_list {{ config {{ name: "a" base_path: "{base}" }} }}',
            "INVALID_ARGUMENT",
            "Illegal setting neither ModelServerConfig::model_type",
        ),
        (
            f'model_config_list {{ config {{ name: "a" base_path: "{base}" model_platform: "x" }} }}',
            "INVALID_ARGUMENT",
            "unsupported platform x",
        ),
    ]:
        fails(getattr(CODES, code), message, lambda: reload(server, text))
    # A folder that is not there keeps nobody else.
    both = [model("half", base), model("new", other)]
    missing = config(*both, model("none", tmp_path / "none"))
    fails(CODES.DEADLINE_EXCEEDED, "", lambda: reload(server, missing, timeout=2))
    place(base, 2, "half_plus_three")
    server.wait_for("half", {1: "END", 2: "AVAILABLE"})
    place(tmp_path / "none", 1, "half_plus")
    server.wait_for("none", {1: "AVAILABLE"})
    reload(server, config(model("new", other)))
    server.wait_for("half", {1: "END", 2: "END"})
    fails(CODES.NOT_FOUND, "Latest(half)", lambda: bias(server))


def test_models_have_groups_of_their_own(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    own = (
        model("one", base)[:-1]
        + 'session_group { session_num: 3 policy: "least_loaded" } }'
    )
    file = tmp_path / "config"
    file.write_text(config(own, model("two", base)))
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    server = start(
        f"--model_config_file={file}",
        "--session_num_per_group=2",
        f"--monitoring_config_file={monitoring}",
    )
    text = server.http("GET", "/metrics")[2].decode()
    groups = [
        line for line in text.splitlines() if line.startswith("session_group_in_flight")
    ]
    assert len(groups) == 5, text


def records(path, logs):
    """A TFRecord file, as TensorFlow writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def warm_up(x):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.name = "any"
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return log


def test_warm_up(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    other = prediction_log_pb2.PredictionLog()
    other.classify_log.request.model_spec.signature_name = "classify"
    example = other.classify_log.request.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(1)
    assert isinstance(
        other.classify_log.request, classification_pb2.ClassificationRequest
    )
    records(base / "1/assets.extra/tf_serving_warmup_requests", [warm_up([1.0]), other])
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true path: "/metrics" }')
    server = start(
        "--model_name=half",
        f"--model_base_path={base}",
        "--session_num_per_group=3",
        f"--monitoring_config_file={monitoring}",
        "--max_num_load_retries=0",
    )
    text = server.http("GET", "/metrics")[2].decode()
    counts = [
        line
        for line in text.splitlines()
        if line.startswith("session_group_requests_total")
    ]
    assert len(counts) == 3 and all(line.endswith(" 2") for line in counts), counts

    # A request that fails, and a file that is none, keep a version from serving.
    place(base, 2, "half_plus_three")
    server.wait_for("half", {1: "END", 2: "AVAILABLE"})
    for version, damage in [(3, None), (4, 9), (5, 20)]:
        hidden = base / f".{version}"
        shutil.copytree(base / "2", hidden)
        file = hidden / "assets.extra/tf_serving_warmup_requests"
        records(file, [warm_up([1.0] if damage else ["text"])])
        if damage:
            content = bytearray(file.read_bytes())
            content[damage] ^= 1
            file.write_bytes(content)
        hidden.rename(base / str(version))
        states = {known: "END" for known in range(1, version + 1)}
        server.wait_for("half", {**states, 2: "AVAILABLE"})
        status = server.rest(f"/v1/models/half/versions/{version}")[
            "model_version_status"
        ][0]
        expected = (
            "warmup data is in TFRecord format" if damage else "warm-up request 1"
        )
        assert expected in status["status"]["error_message"]
    assert struct.calcsize("<Q") == 8 and bias(server) == 3


@pytest.mark.parametrize(
    "flags, text",
    [
        (
            [],
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
        ),
        (
            ["--model_base_path=/m", "--port=0"],
            "At least one of server_options.grpc_port",
        ),
        (
            ["--model_base_path=/m", "--batching_parameters_file=/f"],
            "server_options.enable_batching to true",
        ),
        (
            [
                "--model_base_path=/m",
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "You cannot configure all",
        ),
        (
            ["--model_base_path=/m", "--session_num_per_grup=4"],
            "--session_num_per_group",
        ),
        (["--model_base_path=/m", "--session_group_policy=random"], "round_robin"),
        (["--model_base_path=/m", "--session_group_cpuset=0;x"], "x"),
        (["--model_base_path=/m", "--timeline_path=/t"], "--timeline_start_step"),
        (["--model_base_path=/m", "--timeline_start_step=1"], "--timeline_path"),
        (["--model_base_path=m"], "to have an absolute path"),
        (["--model_config_file=/nothing"], "/nothing"),
        (
            [
                "--model_base_path=/m",
                "--use_session_group=false",
                "--session_num_per_group=2",
            ],
            "contradicts",
        ),
        (["--model_base_path=/m", "--port=70000"], "70000"),
        (["--model_base_path=/m", "--grpc_channel_arguments=a"], "name=value"),
    ],
)
def test_flags(start, tmp_path, flags, text):
    log = tmp_path / "log"
    server = start(*flags, wait=False, log=log)
    assert server.process.wait(60) not in (0, None)
    assert text in log.read_text()


def test_the_manuals_command_runs(start, tmp_path):
    base = tmp_path / "pb"
    place(base, 1, "half_plus")
    server = start(
        "--tensorflow_intra_op_parallelism=16",
        "--tensorflow_inter_op_parallelism=16",
        "--use_per_session_threads=true",
        "--session_num_per_group=4",
        "--allow_gpu_mem_growth=true",
        f"--model_base_path={base}",
    )
    assert bias(server, model="default") == 2


def test_make_serve(tmp_path):
    """What it prints works."""
    import os
    import subprocess
    import sys

    from conftest import ROOT, free_port

    ports = {"PORT": str(free_port()), "REST_PORT": str(free_port())}
    log = tmp_path / "log"
    with open(log, "w") as out:
        command = [ROOT / "crates/model-server/serve.sh"]
        server = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **ports}
        )
    try:
        with grpc.insecure_channel(f"localhost:{ports['PORT']}") as channel:
            grpc.channel_ready_future(channel).result(60)
        text = log.read_text()
        curl = re.search(r"curl .*\\\n.*predict", text).group().replace("\\\n", "")
        answer = subprocess.run(
            ["sh", "-c", f"{curl} -s"], capture_output=True, check=True
        )
        assert b"predictions" in answer.stdout, answer
        ask = re.search(r"crates/model-server/ask.py .*", text).group().split()
        answer = subprocess.run(
            [sys.executable, *ask], cwd=ROOT, capture_output=True, check=True
        )
        assert b"version 1: [0." in answer.stdout, answer
    finally:
        server.terminate()
        assert server.wait(60) == 0
