"""Storage that is half copied, empty or replaced, and models of which some are broken."""

import os
import pathlib
import shutil
import signal
import subprocess
import time

import grpc
import pytest
from conftest import MODELS, SERVER, place
from test_grpc import fails
from test_models import bias, config, model, reload

CODES = grpc.StatusCode
RETRY = ("--max_num_load_retries=2", "--load_retry_interval_micros=1000000")


def status(server, name):
    """Codes and messages of the versions of a model."""
    from tensorflow_serving.apis import get_model_status_pb2

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    found = server.models.GetModelStatus(request, timeout=10).model_version_status
    return {s.version: (s.status.error_code, s.status.error_message) for s in found}


def wait_until(what, seconds=20):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("missing", ["variables", "data", "graph", "half of the data"])
@pytest.mark.parametrize("retries", [RETRY, ("--max_num_load_retries=0",)])
def test_a_version_that_is_being_copied_waits(start, tmp_path, missing, retries):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    server = start("--model_name=half", f"--model_base_path={base}", *retries)
    source, new = MODELS / "half_plus_three", tmp_path / "new"
    shutil.copytree(source, new)
    data = "variables/variables.data-00000-of-00001"
    if missing == "variables":
        shutil.rmtree(new / "variables")
    elif missing == "half of the data":
        os.truncate(new / data, 3)
    else:
        (new / {"data": data, "graph": "saved_model.pb"}[missing]).unlink()
    new.rename(base / "2")
    wait_until(lambda: status(server, "half").get(2, (0, ""))[0] != 0)
    assert bias(server) == 2
    assert server.status("half")[1] == "AVAILABLE"
    shutil.copytree(source, base / "2", dirs_exist_ok=True)
    server.wait_for("half", {1: "END", 2: "AVAILABLE"})
    assert bias(server) == 3


def test_a_version_that_is_tried_again_keeps_no_other_from_loading(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    place(base, 2, "half_plus")
    # The newest is loaded first.
    shutil.rmtree(base / "2/variables")
    place(base, 3, "half_plus")
    shutil.rmtree(base / "3/variables")
    flags = "--max_num_load_retries=5", "--load_retry_interval_micros=60000000"
    file = tmp_path / "models.config"
    file.write_text(config(model("half", base, "all { }")))
    server = start(f"--model_config_file={file}", "--wait_for_models=any", *flags)
    server.wait_for("half", {1: "AVAILABLE", 2: "LOADING", 3: "LOADING"})
    assert bias(server) == 2
    place(base, 4, "half_plus_three")
    server.wait_for(
        "half", {1: "AVAILABLE", 2: "LOADING", 3: "LOADING", 4: "AVAILABLE"}
    )
    assert bias(server) == 3
    # With its files there, it is loaded before its next try is due.
    shutil.copytree(MODELS / "half_plus", base / "2", dirs_exist_ok=True)
    server.wait_for(
        "half", {1: "AVAILABLE", 2: "AVAILABLE", 3: "LOADING", 4: "AVAILABLE"}
    )


def test_the_last_version_stays_when_nothing_is_listed(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    flags = "--model_name=half", f"--model_base_path={base}"
    server = start(*flags)
    (base / "1").rename(tmp_path / "1")
    time.sleep(2.5)
    assert bias(server) == 2
    (tmp_path / "1").rename(base / "1")
    place(base, 2, "half_plus_three")
    server.wait_for("half", {1: "END", 2: "AVAILABLE"})
    server.stop()

    as_tensorflow_serving = start(*flags, "--servable_versions_always_present=false")
    shutil.rmtree(base / "1")
    shutil.rmtree(base / "2")
    as_tensorflow_serving.wait_for("half", {2: "END"})
    fails(CODES.NOT_FOUND, "Servable not found", lambda: bias(as_tensorflow_serving))


def test_a_reload_of_the_same_version_loads_what_is_there_now(start, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    place(one, 1, "half_plus")
    place(other, 1, "half_plus_three")
    server = start("--model_name=half", f"--model_base_path={one}", *RETRY)
    reload(server, config(model("half", other)))
    assert bias(server) == 3
    # The same folder with other files.
    shutil.rmtree(other / "1")
    place(other, 1, "half_plus")
    reload(server, config(model("half", other)))
    assert bias(server) == 2
    # What can't be loaded is an error, and the version goes on as it is.
    (other / "1/saved_model.pb").write_text("no model")
    with pytest.raises(grpc.RpcError) as raised:
        reload(server, config(model("half", other)), timeout=30)
    assert "half" in raised.value.details()
    assert bias(server) == 2
    with pytest.raises(grpc.RpcError) as raised:
        reload(server, config(model("half", tmp_path / "nowhere")), timeout=30)
    assert "nowhere" in raised.value.details()
    assert bias(server) == 2


def test_a_label_on_a_version_that_the_same_reload_adds(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    place(base, 2, "half_plus_three")
    server = start("--model_name=half", f"--model_base_path={base}")
    both = model("half", base, "all { }", [("stable", 1), ("canary", 2)])
    reload(server, config(both))
    for label, right in [("stable", 2), ("canary", 3)]:
        path = f"/v1/models/half/labels/{label}"
        assert server.rest(f"{path}:predict", {"instances": [0]}) == {
            "predictions": [right]
        }
        # The state of a label is that of its version.
        (found,) = server.rest(path)["model_version_status"]
        assert found["version"] == str(right - 1)


def test_status_keeps_a_bounded_number_of_versions_that_are_gone(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    server = start("--model_name=half", f"--model_base_path={base}", *RETRY)
    for version in range(2, 60):
        (base / str(version)).mkdir()
    wait_until(lambda: server.status("half").get(59) in ("LOADING", "END"))
    reload(server, config(model("half", base, "specific { versions: 1 }")))
    assert len(server.status("half")) < 40


def broken_and_good(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    place(good, 1, "half_plus")
    place(bad, 1, "half_plus")
    shutil.rmtree(bad / "1/variables")
    file = tmp_path / "models.config"
    missing = model("missing", tmp_path / "missing")
    file.write_text(config(model("half", good), model("bad", bad), missing))
    return file, bad, tmp_path / "missing"


def test_a_broken_model_keeps_no_other_from_serving(start, tmp_path):
    file, bad, missing = broken_and_good(tmp_path)
    server = start(f"--model_config_file={file}", *RETRY)
    assert bias(server) == 2
    assert "variables.index is missing" in status(server, "bad")[1][1]
    log = (tmp_path / "server0.log").read_text()
    assert "serving without bad, missing" in log
    shutil.copytree(MODELS / "half_plus/variables", bad / "1/variables")
    place(missing, 1, "half_plus_three")
    server.wait_for("bad", {1: "AVAILABLE"})
    server.wait_for("missing", {1: "AVAILABLE"})


def test_all_models_can_be_waited_for(start, tmp_path):
    file, bad, missing = broken_and_good(tmp_path)
    place(missing, 1, "half_plus")
    flags = "--max_num_load_retries=0", "--wait_for_models=all"
    server = start(f"--model_config_file={file}", *flags, wait=False)
    assert server.process.wait(60) == 255
    assert (
        "1 model(s) did not become available" in (tmp_path / "server0.log").read_text()
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_that_waits_for_models(start, tmp_path, number):
    server = start("--model_name=half", f"--model_base_path={tmp_path}", wait=False)
    log = pathlib.Path(tmp_path / "server0.log")
    wait_until(lambda: "Did you forget" in log.read_text())
    assert server.stop(number) == 0


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--session_group_cpuset=0-3;4-7;5000", "5000"),
        ("--session_group_cpuset=0;0", "give one entry for each session"),
        ("--mixed_precision=float8", "bfloat16"),
    ],
)
def test_what_no_retry_mends_ends_the_start_at_once(start, tmp_path, flag, text):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    flags = (
        "--model_name=half",
        f"--model_base_path={base}",
        "--session_num_per_group=3",
    )
    server = start(*flags, flag, wait=False)
    assert server.process.wait(20) == 255
    assert text in (tmp_path / "server0.log").read_text()
    assert "failed: " not in (tmp_path / "server0.log").read_text()


def test_other_sessions_of_a_model_in_its_file(start, tmp_path):
    base, file = tmp_path / "half", tmp_path / "models.config"
    place(base, 1, "half_plus")
    file.write_text(config(model("half", base)))
    server = start(
        f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"
    )
    log = tmp_path / "server0.log"
    file.write_text(
        config(model("half", base)[:-1] + "session_group { session_num: 2 } }")
    )
    wait_until(lambda: "on 2 sessions" in log.read_text())
    wrong = 'session_group { cpuset: "7000" } }'
    file.write_text(config(model("half", base)[:-1] + wrong))
    wait_until(lambda: "7000" in log.read_text())
    assert bias(server) == 2
    assert server.status("half") == {1: "AVAILABLE"}


def pools(server):
    """How many threads the pools of the server's sessions have, by their names."""
    names = [
        (task / "comm").read_text().strip()
        for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()
    ]
    return {
        kind: sum(f"{kind}" in name for name in names) for kind in ("intra", "inter")
    }


def test_flags_of_tensorflow_serving_are_known(start, tmp_path):
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    session = tmp_path / "session.pbtxt"
    session.write_text(
        "intra_op_parallelism_threads: 3 graph_options { rewrite_options { remapping: OFF } }"
    )
    platform = tmp_path / "platform.pbtxt"
    platform.write_text("""platform_configs { key: "tensorflow" value { source_adapter_config {
        [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
          legacy_config { session_config { inter_op_parallelism_threads: 2 } } } } } }""")
    nothing = tmp_path / "models.config"
    nothing.write_text(config(model("half", base)))
    server = start(
        "--model_name=other",
        "--model_base_path=/nowhere",
        f"--model_config_file={nothing}",
        f"--tensorflow_session_config_file={session}",
        "--mixed_precision=bfloat16",
        "--xla_cpu_compilation_enabled=true",
        "--xla_gpu_compilation_enabled=false",
        "--thread_pool_factory_config_file=/nowhere",
        "--prefer_tflite_model=true",
        "--num_tflite_pools=2",
        "--num_tflite_interpreters_per_pool=2",
        "--use_alts_credentials=false",
        "--skip_initialize_tpu=true",
    )
    assert bias(server) == 2
    log = (tmp_path / "server0.log").read_text()
    assert pools(server)["intra"] == 3
    for flag in (
        "model_base_path",
        "xla_cpu_compilation_enabled",
        "prefer_tflite_model",
    ):
        assert f"--{flag}" in log
    server.stop()
    server = start(
        "--model_name=half",
        f"--model_base_path={base}",
        f"--platform_config_file={platform}",
    )
    assert bias(server) == 2
    assert pools(server)["inter"] == 2


REMOTE = ["gs://bucket/half", "s3://bucket/half", "hdfs://host:9000/half"]


@pytest.mark.parametrize("address", [*REMOTE, "file:///models/half"])
@pytest.mark.parametrize(
    "flag",
    [
        "--model_base_path",
        "--model_config_file",
        "--tensorflow_session_config_file",
        "--platform_config_file",
        "--monitoring_config_file",
        "--batching_parameters_file",
        "--ssl_config_file",
        "--timeline_path",
        "--custom_op_libraries",
        "--grpc_socket_path",
    ],
)
def test_flags_take_local_paths(flag, address):
    done = subprocess.run(
        [SERVER, f"{flag}={address}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert f"invalid value '{address}' for '{flag} <" in done.stderr
    says = "local or mounted" if address in REMOTE else "/models/half"
    assert says in done.stderr


@pytest.mark.parametrize("address", REMOTE)
def test_configurations_take_local_paths(start, tmp_path, address):
    place(tmp_path / "half", 1, "half_plus")
    file, log = tmp_path / "models.config", tmp_path / "log"
    file.write_text(config(model("half", tmp_path / "half")))
    server = start(
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=1",
        log=log,
    )
    remote = config(model("half", address))
    says = f"model half: base_path {address} is not on this machine"
    fails(CODES.INVALID_ARGUMENT, says, lambda: reload(server, remote))
    file.write_text(remote)
    wait_until(lambda: says in log.read_text())
    assert bias(server) == 2
    server.stop()
    broken = start(f"--model_config_file={file}", wait=False, log=log)
    assert broken.process.wait(60) == 255
    assert says in log.read_text()
