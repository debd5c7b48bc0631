"""What TensorFlow Serving's own tests check of it, here; and that docs/tensorflow-serving.md says how it is."""

import importlib
import json
import pathlib
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, SERVER, Server, only, place, ssl_config
from google.protobuf import descriptor_pb2, text_format
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2,
    prediction_log_pb2,
    prediction_service_pb2,
    regression_pb2,
    session_service_pb2,
)
from test_grpc import examples, fails, predict, request, values
from test_models import bias, config, model, records, reload, warm_up
from test_operations import batching, metric
from test_rest import error, types
from test_storage import pools

CODES = grpc.StatusCode
TESTS = pathlib.Path(__file__).parent

# All flags of tensorflow_serving/model_servers/main.cc, in its order, as version 2.21 has them: 2.19.0, 2.20.0 and
# the main branch of 2026-07-30 have the same.
FLAGS = """
    port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
    enable_batching allow_version_labels_for_unavailable_models batching_parameters_file
    enable_per_model_batching_parameters model_config_file model_config_file_poll_wait_seconds model_name
    model_base_path num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros
    file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism
    tensorflow_session_config_file tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism
    use_alts_credentials ssl_config_file platform_config_file per_process_gpu_memory_fraction saved_model_tags
    grpc_channel_arguments grpc_max_threads enable_model_warmup num_request_iterations_for_warmup version
    monitoring_config_file remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
    num_tflite_interpreters_per_pool enable_signature_method_name_check xla_cpu_compilation_enabled
    xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file mixed_precision
    skip_initialize_tpu enable_grpc_healthcheck_service enable_serialization_as_tensor_content
""".split()

DOCUMENT = (ROOT / "docs/tensorflow-serving.md").read_text()


def section(title):
    """Rows of the tables of a section, as lists of cells."""
    text = DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # Heads, and the lines below them.
    heads = {i - 1 for i, line in enumerate(lines) if set(line) <= set("|-")}
    return [row for i, row in enumerate(cells) if i not in heads and i - 1 not in heads]


ROWS = {flag.strip("`"): rest for flag, *rest in section("Flags")}
# A value of each type that is none.
WRONG = {
    "port": "65536",
    "from 1": "0",
    "from 0": "-1",
    "number": "x",
    "share": "x",
    "switch": "1",
}


def test_every_flag_is_in_the_table():
    assert list(ROWS) == FLAGS and len(set(FLAGS)) == 48


def refusal(flag):
    """What is said of a value that is not of the flag's type."""
    wrong = WRONG[ROWS[flag][0]]
    command = [SERVER, "--model_base_path=/nowhere", f"--{flag}={wrong}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, f"invalid value '{wrong}' for '--{flag}" in done.stderr


def test_values_of_another_type_are_refused():
    """Of paths, another test says so."""
    assert {type_of for type_of, *_ in ROWS.values()} == {"text", "path", *WRONG}
    help_text = subprocess.run(
        [SERVER, "--help"], capture_output=True, text=True
    ).stdout
    _, *parts = re.split(r"^ +--(\w+)", help_text, flags=re.M)
    switches = {
        flag
        for flag, said in zip(parts[::2], parts[1::2])
        if "[possible values: true, false]" in said
    }
    assert switches & set(FLAGS) == {
        flag for flag in FLAGS if ROWS[flag][0] == "switch"
    }
    # They are all alike, so that one is enough.
    typed = ["enable_batching"]
    typed += [flag for flag in FLAGS if ROWS[flag][0] in WRONG and flag not in switches]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(typed, pool.map(refusal, typed)))
    assert found == dict.fromkeys(typed, (2, True))


@pytest.mark.parametrize(
    "given, says",
    [
        (["--port=8500", "--rest_api_port=8500"], "are both 8500"),
        (["--enable_per_model_batching_parameters"], "needs --enable_batching"),
        (["--monitoring_config_file=/nowhere"], "needs --rest_api_port"),
        (["--tensorflow_session_parallelism=-1"], "threads is -1: give the number"),
    ],
)
def test_flags_that_other_flags_or_numbers_rule_out(given, says):
    command = [SERVER, "--model_base_path=/nowhere", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 255) and says in done.stderr


@pytest.fixture(scope="module")
def flags(tmp_path_factory, certificates):
    """All flags, and the log of the server that has them."""
    folder = tmp_path_factory.mktemp("flags")
    place(folder / "half", 1, "half_plus")

    def file(name, text):
        (folder / name).write_text(text)
        return folder / name

    given = {
        "grpc_socket_path": folder / "socket",
        "rest_api_num_threads": 2,
        "rest_api_timeout_in_ms": 20_000,
        "rest_api_enable_cors_support": "true",
        "enable_batching": "true",
        "allow_version_labels_for_unavailable_models": "true",
        "batching_parameters_file": file("batching", "max_batch_size { value: 8 }"),
        "enable_per_model_batching_parameters": "true",
        "model_name": "half",
        "model_base_path": folder / "half",
        "num_load_threads": 2,
        "num_unload_threads": 2,
        "max_num_load_retries": 1,
        "load_retry_interval_micros": 1000,
        "file_system_poll_wait_seconds": 2,
        "flush_filesystem_caches": "false",
        "tensorflow_session_parallelism": 0,
        "tensorflow_session_config_file": file("session", "isolate_session_state: 1"),
        "tensorflow_intra_op_parallelism": 3,
        "tensorflow_inter_op_parallelism": 2,
        "use_alts_credentials": "true",
        "ssl_config_file": ssl_config(folder, certificates),
        "platform_config_file": file("platform", ""),
        "per_process_gpu_memory_fraction": 0.5,
        "saved_model_tags": "serve",
        "grpc_channel_arguments": "grpc.max_connection_age_ms=60000",
        "grpc_max_threads": 2,
        "enable_model_warmup": "true",
        "num_request_iterations_for_warmup": 1,
        "monitoring_config_file": file("monitoring", "prometheus_config { }"),
        "remove_unused_fields_from_bundle_metagraph": "false",
        "prefer_tflite_model": "true",
        "num_tflite_pools": 2,
        "num_tflite_interpreters_per_pool": 2,
        "enable_signature_method_name_check": "true",
        "xla_cpu_compilation_enabled": "true",
        "xla_gpu_compilation_enabled": "true",
        "enable_profiler": "true",
        "thread_pool_factory_config_file": file("factory", ""),
        "mixed_precision": "bfloat16",
        "skip_initialize_tpu": "true",
        "enable_grpc_healthcheck_service": "true",
        "enable_serialization_as_tensor_content": "true",
    }
    server = Server(
        *(f"--{name}={value}" for name, value in given.items()),
        log=folder / "log",
        credentials=grpc.ssl_channel_credentials(certificates["ca.pem"]),
    )
    assert bias(server) == 2 and pools(server) == {"intra": 3, "inter": 2}
    with grpc.insecure_channel(f"unix:{folder / 'socket'}") as channel:
        grpc.channel_ready_future(channel).result(60)
    assert server.stop() == 0
    # With a file of models, values of their own, and none for what is a switch.
    models = file("models", config(model("half", folder / "half")))
    more = {"model_config_file": models, "model_config_file_poll_wait_seconds": 9}
    switches = [name for name in given if ROWS[name][0] == "switch"]
    # They ask for what other flags have to complete.
    switches = [name for name in switches if "batching" not in name]
    server = Server(
        *(part for name, value in more.items() for part in (f"--{name}", str(value))),
        *(f"--{name}" for name in switches),
        log=folder / "more",
    )
    assert bias(server) == 2
    assert server.stop() == 0
    given = {"port", "rest_api_port", *given, *more}
    return given, (folder / "log").read_text(), (folder / "more").read_text()


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag != "version"])
def test_flags_do_what_the_table_says(flags, flag):
    """What has no effect is named in the log if it asks for one."""
    given, *logs = flags
    assert flag in given
    type_of, state, _, tests = ROWS[flag]
    assert state in ("same", "differs", "warning", "none")
    warns = [
        f"WARN session_group_server::flags: --{flag} has no effect" in log
        for log in logs
    ]
    expected = state == "warning"
    assert warns == [expected, expected and type_of == "switch"]
    # What has an effect has a test of it.
    assert bool(tests) == (state in ("same", "differs")) or flag == GPU


# Without one, it can't be seen that it has an effect.
GPU = "per_process_gpu_memory_fraction"


def named_tests():
    """Those that the document names, `file::name`."""
    return re.findall(r"`([\w/]+(?:\.rs)?)::(\w+)`", DOCUMENT)


def named_in(file):
    if file.endswith(".rs"):
        text = (ROOT / "crates/model-server/src" / file).read_text()
        return set(re.findall(r"#\[test\]\n    fn (\w+)\(\)", text))
    return set(
        re.findall(r"^def test_(\w+)\(", (TESTS / f"test_{file}.py").read_text(), re.M)
    )


def test_the_tests_that_the_document_names_exist():
    found = named_tests()
    assert len(found) > 100
    names = {file: named_in(file) for file in {file for file, _ in found}}
    missing = [f"{file}::{name}" for file, name in found if name not in names[file]]
    assert missing == []


@pytest.mark.parametrize("title", ["REST", "gRPC", "Configuration files", "Behaviours"])
def test_what_the_document_says_has_a_test(title):
    for what, *_, state, why, tests in section(title):
        assert state in ("same", "differs", "none"), what
        assert "::" in tests or (state == "none" and why), what
        assert state == "same" or why, what


def services(module):
    for service in module.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield f"{service.full_name}/{method.name}"


def test_every_call_of_the_client_is_in_the_table(half):
    states = {path.strip("`"): state for path, state, *_ in section("gRPC")}
    modules = [prediction_service_pb2, model_service_pb2, session_service_pb2]
    calls = {path for module in modules for path in services(module)}
    assert calls < set(states)
    for path, state in states.items():
        with pytest.raises(grpc.RpcError) as raised:
            half.channel.unary_unary(f"/{path}")(b"\x0a\x01")
        assert (raised.value.code() == CODES.UNIMPLEMENTED) == (state == "none"), path


def fields(message):
    """`Message.field` of a message and of those in it."""
    if not message.options.map_entry:
        yield from (f"{message.name}.{field.name}" for field in message.field)
        for nested in message.nested_type:
            yield from fields(nested)


CONFIGURATIONS = """
    config/model_server_config config/file_system_storage_path_source config/logging_config
    config/log_collector_config config/platform_config config/monitoring_config config/ssl_config
    servables/tensorflow/session_bundle_config
"""


def test_every_field_of_a_configuration_is_in_the_table(half):
    states = {
        field: state
        for names, state, *_ in section("Configuration files")
        for field in re.findall(r"`(\w+\.\w+)`", names)
    }
    database = ProtoReflectionDescriptorDatabase(half.channel)
    ours, theirs = set(), set()
    for name in CONFIGURATIONS.split():
        path = f"tensorflow_serving/{name}.proto"
        for message in database.FindFileByName(path).message_type:
            ours |= set(fields(message))
        # The client has some of them.
        try:
            module = importlib.import_module(
                f"tensorflow_serving.{name}_pb2".replace("/", ".")
            )
        except ModuleNotFoundError:
            continue
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            theirs |= set(fields(message))
    # These are in no file that a model server reads.
    of_source = ("FileSystemStoragePathSourceConfig.", "ServableToMonitor.")
    ours, theirs = (
        {field for field in fields if not field.startswith(of_source)}
        for fields in (ours, theirs)
    )
    assert len(theirs) > 20 and theirs <= set(states)
    assert ours - {"ModelConfig.session_group"} <= set(states)
    assert {field for field, state in states.items() if state != "none"} <= ours


def folders(base, *names, model="half_plus"):
    """Folders with a model each."""
    for name in names:
        place(base, name, model)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A server of models whose folders have all kinds of names, and of the odd one."""
    base = tmp_path_factory.mktemp("listed")
    place(base / "all", 17, "half_plus")
    place(base / "all", "00000123", "half_plus_three")
    (base / "all/non_numerical_child").mkdir()
    place(base / "zero", 0, "half_plus")
    place(base / "stamped", 20170111173521, "half_plus")
    folders(base / "twice", "0001", "001", "00001")
    folders(base / "latest", 17, 21, 30, 33)
    folders(base / "renamed", 1, 2, 3)
    save(base / "saved/00000123")
    keras().export(str(base / "keras/00000123"), verbose=False)
    export(base / "odd/1")
    policies = {
        "latest": "latest { num_versions: 2 }",
        "all": "all { }",
        "renamed": "all { }",
    }
    models = [
        model(path.name, path, policies.get(path.name, ""))
        for path in sorted(base.iterdir())
    ]
    (base / "models.config").write_text(config(*models))
    server = Server(f"--model_config_file={base / 'models.config'}", log=base / "log")
    server.base = base
    yield server
    assert server.stop() == 0


def available(*versions):
    return dict.fromkeys(versions, "AVAILABLE")


def test_versions_are_folders_that_are_named_by_numbers(listed):
    assert listed.status("all") == available(17, 123)
    assert bias(listed, model="all", version=17) == 2
    # The latest, whose number is not its place in the alphabet.
    assert bias(listed, model="all") == 3
    assert listed.status("stamped") == available(20170111173521)
    # Of folders with the same number, one.
    assert listed.status("twice") == available(1)
    assert listed.status("latest") == available(30, 33)


def test_a_version_may_be_zero(listed):
    assert listed.status("zero") == available(0)
    assert bias(listed, model="zero") == bias(listed, model="zero", version=0) == 2
    path = "/v1/models/zero/versions/0"
    assert listed.rest(f"{path}:predict", {"instances": [2]}) == {"predictions": [3]}
    assert listed.rest(path)["model_version_status"][0]["version"] == "0"


def test_a_version_whose_folder_gets_another_name_is_unloaded(listed):
    folder = listed.base / "renamed"
    assert listed.status("renamed") == available(1, 2, 3)
    (folder / "2").rename(folder / "2.denied")
    listed.wait_for("renamed", {**available(1, 3), 2: "END"})


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """A server whose configuration changes; each test begins with one of its own."""
    base = tmp_path_factory.mktemp("changing")
    place(base / "one", 1, "half_plus")
    place(base / "two", 1, "half_plus")
    place(base / "two", 2, "half_plus_three")
    folders(base / "many", "1", "02", "5", "8")
    server = Server(
        "--model_name=half", f"--model_base_path={base / 'one'}", log=base / "log"
    )
    server.base = base
    yield server
    assert server.stop() == 0


def test_a_reload_without_models_unloads_them(changing):
    reload(changing, config(model("gone", changing.base / "one")))
    assert bias(changing, model="gone") == 2
    reload(changing, "model_config_list { }")
    changing.wait_for("gone", {1: "END"})
    fails(CODES.NOT_FOUND, "Latest(gone)", lambda: bias(changing, model="gone"))
    # And with it again, it is loaded before the answer comes.
    reload(changing, config(model("gone", changing.base / "one")))
    assert changing.status("gone") == available(1)
    assert bias(changing, model="gone") == 2


def test_a_model_goes_to_another_folder_and_back(changing):
    """Also back to a smaller version."""
    one, two = (model("moved", changing.base / name) for name in ["one", "two"])
    reload(changing, config(one))
    assert changing.status("moved") == available(1)
    reload(changing, config(two))
    changing.wait_for("moved", {1: "END", 2: "AVAILABLE"})
    assert bias(changing, model="moved") == 3
    reload(changing, config(one))
    changing.wait_for("moved", {1: "AVAILABLE", 2: "END"})
    assert bias(changing, model="moved") == 2


def test_a_policy_changes(changing):
    """Specific versions are found whatever zeros their folders begin with."""
    folder = changing.base / "many"
    reload(changing, config(model("policy", folder, "latest { num_versions: 2 }")))
    changing.wait_for("policy", available(5, 8))
    reload(
        changing,
        config(model("policy", folder, "specific { versions: 2 versions: 5 }")),
    )
    changing.wait_for("policy", {**available(2, 5), 8: "END"})
    # One is not there: the others serve.
    reload(
        changing,
        config(model("policy", folder, "specific { versions: 2 versions: 7 }")),
    )
    changing.wait_for("policy", {**available(2), 5: "END", 8: "END"})
    reload(changing, config(model("policy", folder)))
    changing.wait_for("policy", {**available(8), 2: "END", 5: "END"})
    # Where none is wanted, the last one stays.
    reload(changing, config(model("policy", folder, "specific { }")))
    time.sleep(1.5)
    assert changing.status("policy") == {**available(8), 2: "END", 5: "END"}


def test_the_type_of_a_model_is_deprecated(changing):
    def entry(rest):
        return f'model_config_list {{ config {{ name: "old" base_path: "{changing.base}/one" {rest} }} }}'

    reload(changing, entry("model_type: TENSORFLOW"))
    assert bias(changing, model="old") == 2
    for rest, text in [
        ('model_type: TENSORFLOW model_platform: "tensorflow"', "Illegal setting both"),
        ('model_platform: "not_a_known_platform"', "not_a_known_platform"),
        ("model_type: OTHER", "ModelServerConfig::model_type choice 2 not supported"),
        ("", "Illegal setting neither"),
    ]:
        fails(CODES.INVALID_ARGUMENT, text, lambda: reload(changing, entry(rest)))
    # What is refused changes nothing.
    assert bias(changing, model="old") == 2


def test_no_configuration_of_another_kind(changing):
    fails(
        CODES.INVALID_ARGUMENT,
        "Only ModelConfigList is currently supported",
        lambda: reload(changing, "custom_model_config { }"),
    )
    logged = model("half", changing.base / "one")[:-1] + "logging_config { } }"
    fails(
        CODES.INVALID_ARGUMENT,
        "logging_config",
        lambda: reload(changing, config(logged)),
    )


def test_paths_are_all_absolute(changing):
    both = config(model("half", changing.base / "one"), model("other", "one"))
    text = "Expected model other to have an absolute path or URI; got base_path()=one"
    fails(CODES.INVALID_ARGUMENT, text, lambda: reload(changing, both))


def test_a_reload_names_no_metrics(changing):
    """Prometheus has them."""
    request = model_management_pb2.ReloadConfigRequest(metric_names=["/tensorflow/x"])
    text_format.Parse(config(model("half", changing.base / "one")), request.config)
    answer = changing.models.HandleReloadConfigRequest(request)
    assert (answer.status.error_code, list(answer.metric)) == (0, [])


@pytest.mark.parametrize(
    "text, says",
    [
        ("improperly formatted { file", "Invalid protobuf file: "),
        ("custom_model_config { }", "list models in model_config_list"),
    ],
)
def test_a_bad_file_of_models_ends_the_start(start, tmp_path, text, says):
    (tmp_path / "models.config").write_text(text)
    server = start(f"--model_config_file={tmp_path / 'models.config'}", wait=False)
    assert server.process.wait(60) == 255
    assert says in (tmp_path / "server0.log").read_text()


@pytest.mark.parametrize(
    "text, says",
    [
        ("legacy_config { enable_model_warmup: true }", "enable_model_warmup"),
        ("legacy_config { batching_parameters { } }", "batching_parameters"),
    ],
)
def test_what_a_platform_may_not_say_is_named(start, tmp_path, text, says):
    file = tmp_path / "platform"
    file.write_text(
        'platform_configs { key: "tensorflow" value { source_adapter_config { '
        "[type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] "
        f"{{ {text} }} }} }} }}"
    )
    flags = "--model_base_path=/nowhere", f"--platform_config_file={file}"
    server = start(*flags, wait=False)
    assert server.process.wait(60) == 255
    assert f"field '{says}' not found" in (tmp_path / "server0.log").read_text()


def test_files_of_requests_to_warm_up(changing):
    """An empty one is none; of one that is wrong the version's status says why."""
    folder, file = changing.base / "warm", "assets.extra/tf_serving_warmup_requests"
    place(folder, 1, "half_plus")
    records(folder / "1" / file, [])
    reload(changing, config(model("warm", folder, "all { }")))
    session_run, streamed = (prediction_log_pb2.PredictionLog() for _ in range(2))
    session_run.session_run_log.SetInParent()
    streamed.predict_streamed_log.SetInParent()
    for name, made in [
        ("2.made", [warm_up([1.0]).SerializeToString()] * 1001),
        ("3.made", [b"no PredictionLog"]),
        ("4.made", [session_run.SerializeToString()]),
        ("5.made", [streamed.SerializeToString()]),
    ]:
        place(folder, name, "half_plus")
        (folder / name / "assets.extra").mkdir()
        with tf.io.TFRecordWriter(str(folder / name / file)) as writer:
            for record in made:
                writer.write(record)
        (folder / name).rename(folder / name.removesuffix(".made"))
    changing.wait_for("warm", {1: "AVAILABLE", **dict.fromkeys([2, 3, 4, 5], "END")})
    for version, code, text in [
        (2, "INVALID_ARGUMENT", "Number of warmup records exceeds the maximum (1000)"),
        (3, "INVALID_ARGUMENT", "Failed to parse warmup record: "),
        (4, "UNIMPLEMENTED", "Unsupported log_type for warmup: session_run_log"),
        (5, "UNIMPLEMENTED", "Unsupported log_type for warmup: predict_streamed_log"),
    ]:
        path = f"/v1/models/warm/versions/{version}"
        (found,) = changing.rest(path)["model_version_status"]
        assert found["status"]["error_code"] == code
        assert text in found["status"]["error_message"]


def test_an_older_version_serves_where_the_latest_is_broken(start, tmp_path):
    """At the start, and where a configuration adds the model."""
    base = tmp_path / "half"
    place(base, 1, "half_plus")
    (base / "2").mkdir()
    (base / "2/saved_model.pb").write_bytes(b"no model")
    (tmp_path / "models.config").write_text(config(model("half", base, "all { }")))
    flags = (
        f"--model_config_file={tmp_path / 'models.config'}",
        "--max_num_load_retries=0",
    )
    server = start(*flags)
    assert server.status("half") == {1: "AVAILABLE", 2: "END"}
    both = [model(name, base, "all { }") for name in ["half", "other"]]
    reload(server, config(*both))
    assert server.status("other") == {1: "AVAILABLE", 2: "END"}
    assert bias(server, model="half") == bias(server, model="other") == 2


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server with flags that change what is allowed."""
    base = tmp_path_factory.mktemp("strict")
    place(base / "half", 1, "half_plus")
    records(base / "half/1/assets.extra/tf_serving_warmup_requests", [warm_up([1.0])])
    place(base / "types", 1, "every_type")
    (base / "models.config").write_text(
        config(*(model(name, base / name) for name in ["half", "types"]))
    )
    server = Server(
        f"--model_config_file={base / 'models.config'}",
        "--allow_version_labels_for_unavailable_models",
        "--file_system_poll_wait_seconds=0",
        "--enable_signature_method_name_check",
        "--tensorflow_session_parallelism=2",
        "--num_request_iterations_for_warmup=3",
        "--monitoring_config_file=" + str(prometheus(base)),
        log=base / "log",
    )
    server.base = base
    yield server
    assert server.stop() == 0


def prometheus(folder):
    file = folder / "monitoring"
    file.write_text('prometheus_config { enable: true path: "/metrics" }')
    return file


def test_warm_up_requests_run_as_often_as_asked(strict):
    text = strict.http("GET", "/metrics")[2].decode()
    runs = re.findall(
        r'^session_group_requests_total{.*model_name="half".* (\d+)$', text, re.M
    )
    assert runs == ["3"]


def test_pools_have_as_many_threads_as_asked(strict):
    """Of both models."""
    assert pools(strict) == {"intra": 4, "inter": 4}


def classify(signature, *xs, model="half"):
    request = classification_pb2.ClassificationRequest(input=examples(*xs))
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def regress(signature, *xs, model="half"):
    request = regression_pb2.RegressionRequest(input=examples(*xs))
    request.model_spec.name, request.model_spec.signature_name = model, signature
    return request


def test_names_of_methods_are_checked_if_asked(strict, half):
    inputs = {"x": [1.0]}
    assert predict(strict, inputs=inputs).outputs
    assert strict.predict.Classify(classify("classify", 1.0)).result.classifications
    assert strict.predict.Regress(regress("regress", 1.0)).result.regressions
    # Predict takes any of the three, the others their own.
    serialised = tf.make_tensor_proto(
        [examples(1.0).example_list.examples[0].SerializeToString()]
    )
    assert predict(strict, signature="regress", inputs={"inputs": serialised}).outputs
    for code, text, call in [
        (
            CODES.INVALID_ARGUMENT,
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            "Was: tensorflow/serving/regress",
            lambda: strict.predict.Classify(classify("regress", 1.0)),
        ),
        (
            CODES.INVALID_ARGUMENT,
            "Expected regression signature method_name to be tensorflow/serving/regress. "
            "Was: tensorflow/serving/predict",
            lambda: strict.predict.Regress(regress("predict", 1.0)),
        ),
        (
            CODES.INTERNAL,
            "Expected prediction signature method_name to be one of",
            lambda: predict(strict, "types", "float32", inputs),
        ),
    ]:
        fails(code, text, call)
    # Without the flag, names don't matter.
    assert predict(half, "types", "float32", inputs).outputs


def test_no_folder_is_looked_at_again(strict):
    place(strict.base / "types", 2, "every_type")
    time.sleep(1.5)
    assert strict.status("types") == available(1)
    names = ["half", "types"]
    reload(strict, config(*(model(name, strict.base / name) for name in names)))
    strict.wait_for("types", {1: "END", 2: "AVAILABLE"})


def test_a_new_label_may_be_ahead_of_its_version(strict):
    """One that is given already may not move to a version that does not serve."""
    types = model("types", strict.base / "types")

    def labelled(*labels):
        return config(model("half", strict.base / "half", labels=labels), types)

    reload(strict, labelled(("A", 1)))
    reload(strict, labelled(("A", 1), ("nice try", 9)))
    text = "not currently available for inference"
    fails(CODES.FAILED_PRECONDITION, text, lambda: reload(strict, labelled(("A", 9))))
    path = "/v1/models/half/labels"
    assert strict.rest(f"{path}/A:predict", {"instances": [0]}) == {"predictions": [2]}
    text = error(strict, f"{path}/nice%20try:predict", {"instances": [0]}, 404)
    assert text == "Servable not found for request: Specific(half, 9)"


def test_tags_choose_the_graph(start, tmp_path):
    place(tmp_path / "half", 1, "half_plus")
    flags = "--saved_model_tags=serve,gpu", "--max_num_load_retries=0"
    server = start(*only("half", tmp_path), *flags, wait=False)
    assert server.process.wait(60) == 255
    assert (
        "gpu"
        in (tmp_path / "server0.log").read_text().split("Failed to start server")[1]
    )


def test_settings_of_grpc_that_have_no_effect_are_named(start, tmp_path):
    place(tmp_path / "half", 1, "half_plus")
    arguments = "grpc.max_connection_age_ms=60000,grpc.lb_policy_name=grpclb,grpc.so_reuseaddr=1"
    server = start(*only("half", tmp_path), f"--grpc_channel_arguments={arguments}")
    assert bias(server) == 2
    log = (tmp_path / "server0.log").read_text()
    for name in ["grpc.lb_policy_name", "grpc.so_reuseaddr"]:
        assert f"--grpc_channel_arguments: {name} has no effect" in log
    assert "max_connection_age" not in log


# Signatures whose outputs are not what their method wants.


def save(folder):
    """A model of TensorFlow 2's, with two signatures."""
    module = tf.Module()
    module.a, module.b = tf.Variable(3.0), tf.Variable(2.0)
    spec = [tf.TensorSpec(None, tf.float32, name="x")]
    f = tf.function(lambda x: {"y": module.a * module.b * x}, input_signature=spec)
    g = tf.function(lambda x: {"y": module.b + 0 * x}, input_signature=spec)
    module.f, module.g = f, g
    signatures = {"serving_default": f, "custom_signature_key": g}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def export(folder):
    """A model that has such signatures, and "parsed", which shows what examples were given."""
    tf1 = tf.compat.v1
    build = tf1.saved_model.build_tensor_info
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None], name="x")
        given = tf1.placeholder(tf.string, [None], name="examples")
        n = tf.shape(given)[0]

        def rows(values, count=n):
            return tf.tile(tf.constant([values]), [count, 1])

        lists = {"names": tf.string, "ratings": tf.float32, "numbers": tf.int64}
        ragged = tf.io.parse_example(
            given, {name: tf.io.RaggedFeature(dtype) for name, dtype in lists.items()}
        )
        texts = [
            tf.strings.reduce_join(
                part if part.dtype == tf.string else tf.strings.as_string(part),
                axis=1,
                separator="|",
            )
            for part in (ragged[name] for name in lists)
        ]
        columns = {
            "scalar": {"y": tf.reduce_sum(x)},
            "uneven": {"a": x + 0, "b": x[:1]},
            "empty": {"y": x[:0]},
            "two_empty": {"a": x[:0], "b": x[:0, tf.newaxis]},
            "complex": {"y": tf.complex(x, x)},
        }
        labels, scores = rows(["a", "b"]), rows([1.0, 2.0])
        of_examples = {
            "parsed": {"classes": tf.stack(texts, axis=1)},
            "classes_only": {"classes": labels},
            "scores_only": {"scores": scores},
            "vector": {"scores": scores[:, 0]},
            "few_classes": {"classes": rows(["a", "b"], 1)},
            "few_scores": {"scores": rows([1.0, 2.0], 1)},
            "no_classes": {"classes": scores},
            "no_scores": {"scores": labels},
            "mismatched": {"classes": labels, "scores": rows([1.0, 2.0, 3.0])},
            "three": {"classes": labels, "scores": scores, "more": labels},
            "matrix": {"outputs": scores},
            "few_values": {"outputs": rows([1.0], 1)},
            "whole": {"outputs": rows([1])},
            "two_values": {"outputs": scores[:, 0], "more": scores[:, 0]},
        }
        of_kind = [({"x": x}, columns), ({"inputs": given}, of_examples)]
        signatures = {
            name: tf1.saved_model.build_signature_def(
                {alias: build(tensor) for alias, tensor in inputs.items()},
                {
                    alias: build(tf.identity(tensor))
                    for alias, tensor in outputs.items()
                },
            )
            for inputs, of_inputs in of_kind
            for name, outputs in of_inputs.items()
        }
        builder = tf1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


def test_a_model_of_tensorflow_2(listed):
    inputs = {"x": [2.0]}
    assert values(predict(listed, "saved", inputs=inputs).outputs["y"]).tolist() == [12]
    answer = predict(listed, "saved", "custom_signature_key", inputs)
    assert values(answer.outputs["y"]).tolist() == [2]
    assert answer.model_spec.version.value == 123


def keras():
    layers = tf.keras.layers
    twice = layers.Dense(
        1, kernel_initializer="ones", bias_initializer="ones", name="y"
    )
    return tf.keras.models.Sequential(
        [layers.Input([1], dtype="float32", name="x"), twice]
    )


def test_a_model_of_keras(listed):
    body = {"instances": [[2.0], [5.0]]}
    assert listed.rest("/v1/models/keras:predict", body) == {"predictions": [[3], [6]]}
    assert listed.status("keras") == available(123)


@pytest.mark.parametrize(
    "signature, text",
    [
        ("vector", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ("few_classes", "Expected classes output batch size of 2. Got: 1"),
        ("few_scores", "Expected scores output batch size of 2. Got: 1"),
        ("no_classes", "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ("no_scores", "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"),
        (
            "mismatched",
            "Tensors class and score should match in dim_size(1). Got 2 vs. 3",
        ),
        ("three", "Expected one or two output Tensors, found 3"),
        ("scalar", "No classification inputs found in SignatureDef"),
        ("matrix", 'to contain at least one of "classes" or "scores"'),
    ],
)
def test_outputs_that_are_no_classes(listed, signature, text):
    request = classify(signature, 1.0, 2.0, model="odd")
    fails(CODES.INVALID_ARGUMENT, text, lambda: listed.predict.Classify(request))


def test_classes_or_scores_may_be_missing(listed):
    for signature, right in [
        ("classes_only", [("a", 0), ("b", 0)]),
        ("scores_only", [("", 1), ("", 2)]),
    ]:
        answer = listed.predict.Classify(classify(signature, 1.0, 2.0, model="odd"))
        for row in answer.result.classifications:
            assert [(c.label, c.score) for c in row.classes] == right


@pytest.mark.parametrize(
    "signature, text",
    [
        ("matrix", "either [batch_size] or [batch_size, 1] but got [2,2]"),
        ("few_values", "Input batch size did not match output batch size: 2 vs. 1"),
        ("whole", "Expected output Tensor of DT_FLOAT.  Got: DT_INT32"),
        ("two_values", "Expected one output Tensor."),
        ("scalar", "No regression inputs found in SignatureDef"),
        ("scores_only", "No regression outputs found in SignatureDef"),
    ],
)
def test_outputs_that_are_no_values(listed, signature, text):
    request = regress(signature, 1.0, 2.0, model="odd")
    fails(CODES.INVALID_ARGUMENT, text, lambda: listed.predict.Regress(request))


def rows(server, signature, model="odd", **body):
    return server.http(
        "POST",
        f"/v1/models/{model}:predict",
        {"signature_name": signature, "instances": [1.0, 2.0], **body},
    )


@pytest.mark.parametrize(
    "signature, text",
    [
        ("scalar", "Tensor name: y has no shape information"),
        ("uneven", "Tensor name: b has inconsistent batch size: 1 expecting: 2"),
        ("complex", "tensor type: complex64"),
    ],
)
def test_outputs_that_are_no_rows(listed, signature, text):
    code, _, body = rows(listed, signature)
    assert code == 400 and text in json.loads(body)["error"], body


@pytest.mark.parametrize("signature", ["empty", "two_empty"])
def test_no_rows(listed, signature):
    code, _, body = rows(listed, signature)
    assert (code, json.loads(body)) == (200, {"predictions": []})


def parsed(server, body):
    """Names, ratings and numbers of each example, as the model sees them."""
    answer = server.rest(
        "/v1/models/odd:classify", json.dumps({"signature_name": "parsed", **body})
    )
    return [[label.split("|") for label, _ in row] for row in answer["results"]]


def test_examples_are_read(listed):
    """A value is a list of one. Truth is a number, as in TensorFlow Serving."""
    found = parsed(
        listed,
        {
            "context": {"names": "pizza"},
            "examples": [
                {
                    "names": ["foo", "bar"],
                    "ratings": [8.0, 9.5, float("nan"), float("inf")],
                },
                {"names": ["baz", {"b64": "aGVsbG8="}], "numbers": [1, True, False]},
                {"ratings": float("-inf"), "numbers": 20},
            ],
        },
    )
    assert [row[0] for row in found] == [["foo", "bar"], ["baz", "hello"], ["pizza"]]
    ratings = [[float(rating) for rating in row[1] if rating] for row in found]
    assert str(ratings) == "[[8.0, 9.5, nan, inf], [], [-inf]]"
    assert [row[2] for row in found] == [[""], ["1", "1", "0"], ["20"]]


@pytest.mark.parametrize(
    "body, text",
    [
        ({"signature_name": ["hello"]}, "'signature_name' key must be a string"),
        ({"context": [{"names": ["foo"]}]}, "Example must be JSON object"),
        ({"examples": {"names": ["foo", "bar"]}}, "list/array"),
        ({"examples": [[{"names": ["foo"]}]]}, "Example must be JSON object"),
        (
            {"examples": [{"names": [10, None]}]},
            "names has element with unexpected JSON type: Null",
        ),
        ({"examples": [{"names": [10, 10.0]}]}, "feature: names expecting type: int64"),
        (
            {"examples": [{"names": [10, {"test": 10}]}]},
            "names has element with unexpected JSON type: Object",
        ),
        (
            {"examples": [{"names": [[10], 20]}]},
            "names has element with unexpected JSON type: Array",
        ),
        ({"examples": [{"names": [20, 2**64 - 13]}]}, "Only int64_t is supported"),
    ],
)
@pytest.mark.parametrize("method", ["classify", "regress"])
def test_examples_that_are_none(listed, method, body, text):
    body = {"signature_name": "parsed", "examples": [{"names": ["foo"]}], **body}
    assert text in error(listed, f"/v1/models/odd:{method}", body)


def test_values_of_regressions_need_not_be_finite(half):
    xs = [1.0, float("inf"), float("-inf"), float("nan")]
    body = {"signature_name": "regress", "examples": [{"x": x} for x in xs]}
    code, _, answer = half.http("POST", "/v1/models/half:regress", json.dumps(body))
    assert (code, b"[2.5, Infinity, -Infinity, NaN]" in answer) == (200, True)


def test_floats_of_all_sizes(half):
    """Whole numbers and others are floats; what is too small for one is zero, with its sign."""
    assert types(half, "float32", [1, 2.0, 0.007]) == [1, 2, 0.007]
    assert types(half, "float64", [1.0, 2, 0.662]) == [1, 2, 0.662]
    for text in ["1435774380", "1435774380.0"]:
        body = f'{{"signature_name": "float32", "instances": [{text}]}}'
        (found,) = half.rest("/v1/models/types:predict", body)["predictions"]
        assert np.float32(found) == np.float32(1435774380)
    smallest = "2.2250738585072014e-308"
    body = f'{{"signature_name": "float32", "instances": [{smallest}, -{smallest}]}}'
    _, _, answer = half.http("POST", "/v1/models/types:predict", body)
    assert b"[0.0, -0.0" in answer


def test_lists_that_are_too_deep(half):
    """TensorFlow Serving reads any depth where no tensor is."""
    deep = "[" * 500_000 + "]" * 500_000
    for body in [
        f'{{"instances": [1], "nested": {deep}}}',
        f'{{"signature_name": {deep}}}',
    ]:
        text = error(half, "/v1/models/half:predict", body)
        assert text.startswith("JSON Parse error: Nested too deeply.")
    # Names that have no meaning are no error.
    deep = "[" * 100 + "]" * 100
    body = f'{{"instances": [2], "nested": {deep}}}'
    assert half.rest("/v1/models/half:predict", body) == {"predictions": [3]}


@pytest.mark.parametrize(
    "instances, text",
    [
        ([[1, 2], [3, 4], [5, 6, 7]], "Expecting tensor size"),
        ([[1, 2], [3, 4], [[5, 6]]], "Expecting shape"),
        ([1, [1]], "Expecting shape"),
        ([[1, 2], ["a", "b"]], "not of expected type"),
    ],
)
def test_rows_of_other_shapes(half, instances, text):
    body = {"signature_name": "int32", "instances": instances}
    assert text in error(half, "/v1/models/types:predict", body)


def test_rows_of_lists(half):
    rows = [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 0], [1, 2]]]
    for form in ["instances", "inputs"]:
        assert types(half, "int32", rows, form) == rows


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/debug/model_name"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/foo:predict"),
        ("GET", "/v1/models/foo/version/50:predict"),
        ("POST", "/v1/models/foo/version/50:regress"),
        ("POST", "/v1/models/foo/versions/HELLO:regress"),
        ("POST", "/v1/models/foo/metadata"),
        ("POST", "/v1/models/foo/label/some_label:regress"),
        ("POST", "/v1/models/foo/versions/50/labels/some_label:regress"),
        ("POST", "/v1/models/foo/versions/some_label:regress"),
    ],
)
def test_calls_that_there_are_not(half, method, path):
    body = "" if method == "POST" else None
    assert error(half, path, body, 400, method) == f"Malformed request: {method} {path}"


def test_a_name_may_be_in_other_letters_and_encoded(half):
    body = {"instances": [2]}
    for path in ["/V1/Models/half:predict", "/v1/models/ha%6Cf/Versions/1:predict"]:
        assert half.rest(path, body) == {"predictions": [3]}


def test_an_example_may_be_a_tensor_of_predict(half):
    """Predict asks signatures of the other methods, too."""
    one = examples(2.0).example_list.examples[0].SerializeToString()
    inputs = {"inputs": tf.make_tensor_proto([one])}
    answer = predict(half, signature="regress", inputs=inputs)
    assert values(answer.outputs["outputs"]).tolist() == [[3]]
    answer = predict(half, signature="classify", inputs=inputs)
    assert values(answer.outputs["classes"]).tolist() == [[b"low", b"high"]]


def test_no_examples_but_a_context(half):
    for data in [input_pb2.Input(), examples(), examples(context=1.0)]:
        for method, empty in [
            (half.predict.Classify, classify("classify")),
            (half.predict.Regress, regress("regress")),
        ]:
            empty.input.CopyFrom(data)
            fails(CODES.INVALID_ARGUMENT, "Input is empty", lambda: method(empty))


def test_the_state_of_a_version(half):
    request = get_model_status_pb2.GetModelStatusRequest()
    fails(
        CODES.INVALID_ARGUMENT,
        "Missing ModelSpec",
        lambda: half.models.GetModelStatus(request),
    )
    request.model_spec.name = "half"
    for version in [None, 1]:
        if version:
            request.model_spec.version.value = version
        (found,) = half.models.GetModelStatus(request).model_version_status
        assert (found.version, found.state) == (1, found.AVAILABLE)
        assert (found.status.error_code, found.status.error_message) == (0, "")
    request.model_spec.version.value = 2
    text = "Could not find version 2 of model half"
    fails(CODES.NOT_FOUND, text, lambda: half.models.GetModelStatus(request))


def test_batches_of_what_fits_together(start, tmp_path):
    """Requests of a signature, whatever the order of their inputs; each set of outputs has batches of its own."""
    place(tmp_path / "half", 1, "half_plus")
    # Two of the requests fill a batch, which does not run before.
    text = "max_batch_size { value: 4 } batch_timeout_micros { value: 50000000 } "
    # The order of sizes is not checked, and the name not used.
    text += 'allowed_batch_sizes: [4, 2, 4] thread_pool_name { value: "mine" }'
    flags = batching(tmp_path, text)
    monitoring = f"--monitoring_config_file={prometheus(tmp_path)}"
    server = start(*only("half", tmp_path), *flags, monitoring, "--grpc_max_threads=16")

    def ask(number, signature, names, outputs=()):
        x = {"x": [float(number)] * 2, "text": [f"{number}"] * 2}
        inputs = {name: x[name] for name in names}
        answer = predict(server, signature=signature, inputs=inputs, outputs=outputs)
        found = {
            name: values(tensor).tolist() for name, tensor in answer.outputs.items()
        }
        right = {"y": [number / 2 + 2] * 2, "text_bytes": [f"{number}".encode()] * 2}
        assert found == {name: right[name] for name in outputs or found}

    runs = ":tensorflow:serving:batching_session:wrapped_run_count"
    with ThreadPoolExecutor(8) as pool:
        for asked, batches in [
            ([("named", ["x", "text"]), ("named", ["text", "x"])], 1),
            # Signatures apart.
            (
                [
                    ("", ["x"]),
                    ("", ["x"]),
                    ("named", ["x", "text"]),
                    ("named", ["text", "x"]),
                ],
                2,
            ),
            # The sets of outputs apart.
            (
                [
                    ("named", ["x", "text"], ["y"]),
                    ("named", ["text", "x"], ["y"]),
                    ("named", ["x", "text"], ["text_bytes"]),
                    ("named", ["x", "text"], ["text_bytes"]),
                ],
                2,
            ),
        ]:
            before = metric(server, runs)
            list(pool.map(lambda one: ask(one[0], *one[1]), enumerate(asked)))
            assert metric(server, runs) == before + batches, asked
    waited = ":tensorflow:serving:batching_session:queuing_latency_count"
    assert metric(server, f'{waited}{{thread_pool_name=""}}') == 10
    wrong = request(signature="named", inputs={"x": [1.0] * 2, "text": ["a"] * 3})
    text = "Batching Run() input tensors must have equal 0th-dimension size"
    fails(CODES.INVALID_ARGUMENT, text, lambda: server.predict.Predict(wrong))


def test_the_client_of_what_is_not_there_hears_so(half):
    """No service for profiles, none for sessions."""
    for path in [
        "tensorflow.ProfilerService/Profile",
        "tensorflow.serving.SessionService/SessionRun",
    ]:
        call = half.channel.unary_unary(f"/{path}")
        fails(CODES.UNIMPLEMENTED, "", lambda: call(b""))
