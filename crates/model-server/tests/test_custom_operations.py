"""Models with operations that TensorFlow lacks, from libraries that the command line names."""

import json
import subprocess

import grpc
import pytest
import tensorflow as tf
from conftest import ROOT, only
from test_grpc import fails, predict, values


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """One that has the operation Twice."""
    path = tmp_path_factory.mktemp("library") / "twice.so"
    subprocess.run([ROOT / "c_tests/test_op/make.sh", path], check=True)
    return path


@pytest.fixture
def model(tmp_path, library):
    """Its base path; y = Twice(x)."""
    operations = tf.load_op_library(str(library))
    module = tf.Module()
    shape = tf.TensorSpec([None], tf.float32, name="x")
    module.f = tf.function(
        lambda x: {"y": operations.twice(x)}, input_signature=[shape]
    )
    tf.saved_model.save(module, str(tmp_path / "twice/1"), signatures=module.f)
    return tmp_path / "twice"


def test_a_library_is_loaded(start, tmp_path, library, model):
    server = start(*only("twice", tmp_path), f"--custom_op_libraries={library}")
    answer = predict(server, "twice", inputs={"x": [1.5, 4.0]})
    assert values(answer.outputs["y"]).tolist() == [3.0, 8.0]


def test_without_it_the_operation_and_the_flag_are_named(start, base, tmp_path, model):
    log = tmp_path / "log"
    config = tmp_path / "models"
    entry = 'config {{ name: "{0}" base_path: "{1}/{0}" model_platform: "tensorflow" }}'
    entries = "".join(entry.format(name, tmp_path) for name in ["twice", "half"])
    config.write_text(f"model_config_list {{ {entries} }}")
    server = start(f"--model_config_file={config}", log=log)
    status = json.loads(server.http("GET", "/v1/models/twice")[2])
    (version,) = status["model_version_status"]
    # What no retry mends is not tried again.
    assert version["state"] == "END"
    message = version["status"]["error_message"]
    assert "'Twice'" in message
    assert "library that has the operation Twice in --custom_op_libraries" in message
    assert message in log.read_text()
    predict(server, inputs={"x": [1.0]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("not a library", "file too short"),
        ("int missing_function(void); int x(void) { return missing_function(); }", ""),
    ],
    ids=["missing", "other", "incompatible"],
)
def test_libraries_that_can_not_be_loaded(start, base, tmp_path, library, text, says):
    path, log = tmp_path / "wrong.so", tmp_path / "log"
    if text and "int" in text:
        source = tmp_path / "wrong.c"
        source.write_text(text)
        command = ["cc", "-shared", "-fPIC", "-o", path, source]
        subprocess.run(command, check=True)
        says = "undefined symbol: missing_function"
    elif text:
        path.write_text(text)
    server = start(
        *only("half", base),
        f"--custom_op_libraries={library},{path}",
        log=log,
        wait=False,
    )
    assert server.process.wait(60) == 255
    text = log.read_text()
    assert "Failed to start server. Error: --custom_op_libraries: " in text
    assert str(path) in text and says in text


def test_a_request_says_so_as_well(start, tmp_path, model):
    """Where nothing has asked before."""
    server = start(*only("twice", tmp_path), "--enable_model_warmup=false")
    says = "library that has the operation Twice in --custom_op_libraries"
    for _ in range(2):
        ask = lambda: predict(server, "twice", inputs={"x": [1.0]})  # noqa: E731
        fails(grpc.StatusCode.UNIMPLEMENTED, says, ask)
