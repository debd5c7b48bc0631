"""What Triton's own clients see, which speak KServe's protocol, version 2."""

import asyncio
import concurrent.futures
import gzip
import json
import queue
import re
import time
import urllib.parse

import ml_dtypes
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from conftest import ROOT, only, place
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

KINDS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


def client(server, kind):
    """A client that knows the module it is from."""
    port = {"http": server.rest_port, "grpc": server.port}[kind]
    made = KINDS[kind].InferenceServerClient(f"localhost:{port}")
    made.kind, made.module = kind, KINDS[kind]
    return made


@pytest.fixture(params=KINDS)
def triton(half, request):
    with client(half, request.param) as found:
        yield found


def input_of(module, name, array, datatype=None):
    datatype = datatype or tritonclient.utils.np_to_triton_dtype(array.dtype)
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def infer(client, model, inputs, **options):
    inputs = [input_of(client.module, *named) for named in inputs.items()]
    return client.infer(model, inputs, **options)


def fails(call, *says):
    with pytest.raises(InferenceServerException) as caught:
        call()
    for text in says:
        assert text in caught.value.message(), caught.value
    return caught.value.status()


X = {"x": np.float32([1, 2, 5])}


def test_a_request(triton):
    answer = infer(triton, "half", X, request_id="a7")
    assert answer.as_numpy("y").tolist() == [2.5, 3, 4.5]
    response = answer.get_response()
    get = response.get if triton.kind == "http" else lambda n: getattr(response, n)
    assert (get("model_name"), get("model_version"), get("id")) == ("half", "1", "a7")
    answer = infer(triton, "half", X, model_version="1")
    assert answer.as_numpy("y").tolist() == [2.5, 3, 4.5]


def test_clients_that_do_not_block(half):
    async def ask(module, port):
        async with module.InferenceServerClient(f"localhost:{port}") as found:
            assert await found.is_server_live()
            assert await found.is_model_ready("half")
            answers = [
                found.infer("half", [input_of(module, "x", np.float32([i]))])
                for i in range(20)
            ]
            return [(await answer).as_numpy("y")[0] for answer in answers]

    expected = [i / 2 + 2 for i in range(20)]
    http, grpc = tritonclient.http.aio, tritonclient.grpc.aio
    assert asyncio.run(ask(http, half.rest_port)) == expected
    assert asyncio.run(ask(grpc, half.port)) == expected


ARRAYS = {
    "bool": np.array([True, False]),
    "int8": np.int8([-128, 127]),
    "int16": np.int16([-(2**15), 2**15 - 1]),
    "int32": np.int32([-(2**31), 2**31 - 1]),
    "int64": np.int64([-(2**63), 2**63 - 1]),
    "uint8": np.uint8([0, 255]),
    "uint16": np.uint16([0, 2**16 - 1]),
    "uint32": np.uint32([0, 2**32 - 1]),
    "uint64": np.uint64([0, 2**64 - 1]),
    "float16": np.float16([0.1, -65504]),
    "bfloat16": np.array([0.1, -3e38], ml_dtypes.bfloat16),
    "float32": np.float32([[0.1, np.inf], [-3e38, 1e-40]]),
    "float64": np.float64([0.1, 1 / 3]),
    "string": np.array([b"a", b"", "ü".encode(), b"\xff\x00"], object),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("shape", ["own", "empty", "scalar"])
def test_types(triton, name, shape):
    array = ARRAYS[name]
    if shape == "empty":
        array = array[:0]
    if shape == "scalar":
        array = array.reshape(-1)[0:1].reshape(())
    answer = infer(triton, "types", {"x": array}, parameters={"signature_name": name})
    found = answer.as_numpy("y")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes() or found.tolist() == array.tolist()


def post(server, model, body, code=200, headers=None):
    """Of a request that is JSON, or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    url = f"http://localhost:{server.rest_port}/v2/models/{model}/infer"
    answer = requests.post(url, data, headers=headers, timeout=60)
    assert answer.status_code == code, answer.text
    return answer.json()


def of_json(name, datatype, shape, data):
    return {
        "parameters": {"signature_name": name},
        "inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}],
    }


@pytest.mark.parametrize(
    "name, datatype, data",
    [
        ("bool", "BOOL", [True, False]),
        ("int8", "INT8", [-128, 127]),
        ("int64", "INT64", [-(2**63), 2**63 - 1]),
        ("uint64", "UINT64", [0, 2**64 - 1]),
        ("float16", "FP16", [0.5, -65504]),
        ("bfloat16", "BF16", [0.5, -2]),
        ("float32", "FP32", [0.5, 1e10]),
        ("float64", "FP64", [0.1, 1 / 3]),
        ("string", "BYTES", ["a", 'ü "\\\n']),
    ],
)
def test_types_as_json(half, name, datatype, data):
    for shape, sent in [([2], data), ([2, 1], data), ([1, 2], [data])]:
        answer = post(half, "types", of_json(name, datatype, shape, sent))
        expected = {"name": "y", "datatype": datatype, "shape": shape, "data": data}
        assert answer["outputs"] == [expected]
    assert "id" not in answer and answer["model_version"] == "1"


@pytest.mark.parametrize(
    "name, datatype, bad",
    [
        ("int8", "INT8", 128),
        ("int8", "INT8", -129),
        ("uint8", "UINT8", -1),
        ("int16", "INT16", 2**15),
        ("uint16", "UINT16", 2**16),
        ("int32", "INT32", 2**31),
        ("uint32", "UINT32", 2**32),
        ("int64", "INT64", 2**63),
        ("uint64", "UINT64", 2**64),
        ("float16", "FP16", 65520),
        ("float32", "FP32", 1e39),
        ("bool", "BOOL", 1),
        ("string", "BYTES", 1),
        ("int32", "INT32", 1.5),
        ("float32", "FP32", "1"),
    ],
)
def test_values_must_be_of_their_type(half, name, datatype, bad):
    body = of_json(name, datatype, [1], [bad])
    assert "is not of expected type" in post(half, "types", body, 400)["error"]


TYPED = [
    ("bool", "BOOL", "bool_contents", [True, False], None),
    ("int8", "INT8", "int_contents", [-128, 127], 128),
    ("int16", "INT16", "int_contents", [-(2**15), 7], 2**15),
    ("int32", "INT32", "int_contents", [-(2**31), 7], None),
    ("int64", "INT64", "int64_contents", [-(2**63), 7], None),
    ("uint8", "UINT8", "uint_contents", [0, 255], 256),
    ("uint16", "UINT16", "uint_contents", [0, 7], 2**16),
    ("uint32", "UINT32", "uint_contents", [0, 2**32 - 1], None),
    ("uint64", "UINT64", "uint64_contents", [0, 2**64 - 1], None),
    ("float32", "FP32", "fp32_contents", [0.5, -2], None),
    ("float64", "FP64", "fp64_contents", [0.1, -2], None),
    ("string", "BYTES", "bytes_contents", [b"\xff", b""], None),
]


@pytest.mark.parametrize("name, datatype, field, data, bad", TYPED)
def test_lists_of_numbers_in_messages(half, name, datatype, field, data, bad):
    with client(half, "grpc") as found:

        def ask(field, data):
            request = service_pb2.ModelInferRequest(model_name="types")
            request.parameters["signature_name"].string_param = name
            sent = request.inputs.add(name="x", datatype=datatype, shape=[2])
            getattr(sent.contents, field).extend(data)
            answer = found._client_stub.ModelInfer(request)
            return tritonclient.grpc.InferResult(answer).as_numpy("y").tolist()

        assert ask(field, data) == data

        def refused(field, data, says):
            with pytest.raises(Exception) as caught:
                ask(field, data)
            assert says in caught.value.details()

        refused(field, data[:1], f"1 values in {field}, but 2 elements")
        other = "fp64_contents" if field != "fp64_contents" else "bool_contents"
        refused(other, [1], f"it has {other}: its datatype has {field}")
        if bad is not None:
            refused(field, [0, bad], f"{bad} is out of the range")


def test_outputs_that_are_asked_for(triton):
    module = triton.module

    def ask(*outputs, **options):
        parameters = {"signature_name": "named"}
        text = np.array([b"\xff", b"b"], object)
        inputs = {"x": np.float32([1, 2]), "text": text}
        outputs = [module.InferRequestedOutput(*output) for output in outputs]
        options.setdefault("parameters", parameters)
        return infer(triton, "half", inputs, outputs=outputs, **options)

    answer = ask()
    assert answer.as_numpy("y").tolist() == [2.5, 3]
    assert answer.as_numpy("text_bytes").tolist() == [b"\xff", b"b"]
    answer = ask(["y"])
    assert answer.as_numpy("y").tolist() == [2.5, 3]
    assert answer.as_numpy("text_bytes") is None
    fails(lambda: ask(["z"]), "output tensor alias not found in signature: z")
    fails(lambda: ask(["y"], ["y"]), "duplicate output tensor alias: y")
    if triton.kind == "http":
        says = 'output "text_bytes" has bytes that are not UTF-8', "ask for binary data"
        fails(lambda: ask(["text_bytes", False]), *says)
        answer = ask(["y", False], ["text_bytes", True])
        assert answer.get_output("y")["data"] == [2.5, 3]
        assert answer.as_numpy("text_bytes").tolist() == [b"\xff", b"b"]


def test_what_there_is_not_is_refused(triton):
    module = triton.module

    def ask(**options):
        return infer(triton, "half", X, **options)

    fails(lambda: ask(sequence_id=7, sequence_start=True), "sequence", "by itself")
    fails(
        lambda: ask(outputs=[module.InferRequestedOutput("y", class_count=2)]),
        'output "y": parameter classification',
    )
    shared = module.InferInput("x", [3], "FP32")
    shared.set_shared_memory("region", 12)
    says = "no shared memory: send tensors in the request"
    fails(lambda: triton.infer("half", [shared]), 'input "x"', says)
    output = module.InferRequestedOutput("y")
    output.set_shared_memory("region", 12)
    fails(lambda: ask(outputs=[output]), 'output "y"', says)
    fails(lambda: triton.register_system_shared_memory("r", "/r", 12), says)
    fails(lambda: triton.unregister_cuda_shared_memory(), says)
    fails(triton.get_system_shared_memory_status, says)
    fails(lambda: triton.get_model_config("half"), "no configurations of models")
    fails(
        lambda: triton.get_inference_statistics("half"),
        "no statistics by this protocol",
    )
    fails(lambda: triton.load_model("half"), "no loading by this protocol")
    fails(lambda: triton.unload_model("half"), "no loading by this protocol")


def test_what_is_wrong_says_so(triton):
    def ask(inputs, model="half", **options):
        return fails(lambda: infer(triton, model, inputs, **options), *says)

    is_http = triton.kind == "http"
    says = ["Servable not found for request: Latest(no)"]
    code = ask(X, "no")
    assert code == ("404" if is_http else "StatusCode.NOT_FOUND")
    says = ["Specific(half, 9)"]
    ask(X, model_version="9")
    says = ["Unrecognized servable version label: best"]
    code = ask(X, model_version="best")
    assert code == ("400" if is_http else "StatusCode.INVALID_ARGUMENT")
    says = ['there is no signature "no"', "named, ", "by the parameter signature_name"]
    ask(X, parameters={"signature_name": "no"})
    says = ['there is no signature "serving_default"']
    ask(X, "types")
    says = ['input "x" was sent as INT32, but is FP32']
    ask({"x": np.int32([1])})
    says = ["Signature input alias: x(feed name: x:0) not found in request"]
    ask({"z": np.float32([1])})
    says = ["Sent extra: {z}. Missing but required: {}"]
    ask({**X, "z": np.float32([1])})
    says = ["Missing but required: {x}"]
    ask({})


@pytest.mark.parametrize(
    "body, says",
    [
        ({}, "the request has no inputs"),
        ([], "the request must be an object, not Array"),
        ({"inputs": {}}, "inputs must be a list, not Object"),
        ({"inputs": [1]}, "an input must be an object, not Number"),
        ({"inputs": [{}]}, "an input has no name"),
        ({"inputs": [{"name": 1}]}, "name must be a string: 1"),
        ({"inputs": [], "id": 1}, "id must be a string: 1"),
        ({"inputs": [], "outputs": [{}]}, "an output has no name"),
        ({"inputs": [], "parameters": 1}, "parameters must be an object"),
        ({"shape": None}, "shape must be a list, not Null"),
        ({"shape": [1.5]}, "a shape has 1.5: give whole numbers"),
        ({"shape": [-1]}, "its shape has -1"),
        ({"shape": [2**40, 2**40]}, "more elements than can be counted"),
        ({"shape": [2]}, "send 2 values by its shape [2]"),
        ({"shape": [1, 1], "data": [[[1]]]}, "send 1 values by its shape [1, 1]"),
        ({"datatype": "FLOAT"}, 'there is no datatype "FLOAT": send one of BOOL, '),
        ({"datatype": "INT8"}, 'input "x" was sent as INT8, but is FP32'),
        ({"parameters": {"binary_data_size": 4}}, "both data and binary_data_size"),
        ({"data": [[1], 2]}, "incorrect level"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bodies(half, body, says):
    if isinstance(body, dict) and not body.keys() & {"inputs"} and body:
        input = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
        body = {"inputs": [{**input, **body}]}
    assert says in post(half, "half", body, 400)["error"]


def test_bodies_that_are_no_json(half):
    for body, says in [
        (b"", "The document is empty"),
        (b"{", "JSON Parse error"),
        (b'{"inputs": [{"name": "\xff"}]}', "Invalid encoding in string"),
        (b"[" * 100_000, "JSON Parse error"),
    ]:
        assert says in post(half, "half", body, 400)["error"]
    twice = of_json("", "FP32", [1], [1])
    twice["inputs"] *= 2
    assert 'input "x" is there twice' in post(half, "half", twice, 400)["error"]
    headers = {"Inference-Header-Content-Length": "x"}
    assert "must be a number" in post(half, "half", b"{}", 400, headers)["error"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(triton, algorithm):
    key = (
        "request_compression_algorithm"
        if triton.kind == "http"
        else "compression_algorithm"
    )
    many = {"x": np.ones(10_000, np.float32)}
    answer = infer(triton, "half", many, **{key: algorithm})
    assert answer.as_numpy("y").tolist() == [2.5] * 10_000


def test_what_can_not_be_unpacked_is_refused(half):
    headers = {"Content-Encoding": "gzip"}
    error = post(half, "half", b"no gzip", 400, headers)["error"]
    assert error.startswith("the request is not packed as its head says: ")
    bomb = gzip.compress(b" " * (101 << 20))
    assert "when unpacked" in post(half, "half", bomb, 429, headers)["error"]


def test_streams(half):
    answers = queue.Queue()
    with client(half, "grpc") as found:
        found.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(10):
            found.async_stream_infer(
                "half",
                [input_of(tritonclient.grpc, "x", np.float32([i]))],
                request_id=str(i),
            )
        found.async_stream_infer("no", [])
        for i in range(10):
            result, error = answers.get(timeout=60)
            assert error is None and result.as_numpy("y").tolist() == [i / 2 + 2]
            assert result.get_response().id == str(i)
        _, error = answers.get(timeout=60)
        assert "Servable not found for request: Latest(no)" in error.message()
        found.stop_stream()


def two(server, kind, inputs, **options):
    """Answers to two requests at a time."""

    def ask(_):
        # A client for HTTP is of the thread that has made it.
        with client(server, kind) as found:
            return infer(found, "half", inputs, **options)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return list(threads.map(ask, range(2)))


def test_labels_batches_and_deadlines(start, tmp_path):
    for version in [1, 2]:
        place(tmp_path / "half", version, "half_plus")
    config = tmp_path / "models"
    config.write_text(
        f'model_config_list {{ config {{ name: "half" base_path: "{tmp_path / "half"}" '
        'model_platform: "tensorflow" model_version_policy { all {} } '
        'version_labels { key: "old" value: 1 } } }'
    )
    parameters = tmp_path / "batching"
    parameters.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 2000000 } "
        "num_batch_threads { value: 1 }"
    )
    server = start(
        f"--model_config_file={config}",
        "--enable_batching",
        f"--batching_parameters_file={parameters}",
        "--enable_prometheus",
    )
    for kind in KINDS:
        with client(server, kind) as found:
            four = {"x": np.float32([1, 2, 3, 4])}
            # It waits for its batch meanwhile.
            fails(
                lambda: infer(found, "half", four, timeout=500_000), "timeout exceeded"
            )
            # Two requests of four rows are a batch of eight, which waits no longer.
            begun = time.monotonic()
            answers = two(server, kind, four, model_version="old")
            assert time.monotonic() - begun < 1.5
            for answer in answers:
                assert answer.as_numpy("y").tolist() == [2.5, 3, 3.5, 4]
                response = answer.get_response()
                is_http = kind == "http"
                version = (
                    response["model_version"] if is_http else response.model_version
                )
                assert version == "1"
    text = server.http("GET", "/monitoring/prometheus/metrics")[2].decode()
    assert ":tensorflow:serving:batching_session:processed_batch_size_sum" in text


def test_deadlines_stop_requests(start, base):
    server = start(*only("loop", base))
    for kind in KINDS:
        with client(server, kind) as found:
            inputs = {"word": np.array([b"a"], object), "n": np.array(10**9, np.int32)}
            begun = time.monotonic()
            code = fails(lambda: infer(found, "loop", inputs, timeout=300_000))
            assert code in ("504", "StatusCode.DEADLINE_EXCEEDED")
            # It does not run on.
            inputs["n"] = np.array(1, np.int32)
            infer(found, "loop", inputs, timeout=30_000_000, priority=1)
            assert time.monotonic() - begun < 10


def test_what_is_said_of_the_server(triton):
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("half") and triton.is_model_ready("half", "1")
    is_http = triton.kind == "http"

    server = triton.get_server_metadata()
    get = server.get if is_http else lambda name: getattr(server, name)
    assert get("name") == "session_group_model_server" and get("version")
    assert "binary_tensor_data" in get("extensions")
    model = triton.get_model_metadata("half")
    get = model.get if is_http else lambda name: getattr(model, name)
    assert (get("name"), list(get("versions"))) == ("half", ["1"])
    assert get("platform") == "tensorflow_savedmodel"
    (x,), (y,) = get("inputs"), get("outputs")
    if is_http:
        assert x == {"name": "x", "datatype": "FP32", "shape": [-1]}
        assert y == {"name": "y", "datatype": "FP32", "shape": [-1]}
    else:
        assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1])
        assert (y.name, y.datatype, list(y.shape)) == ("y", "FP32", [-1])
    says = "Servable not found for request: Latest(no)"
    fails(lambda: triton.get_model_metadata("no"), says)
    index = triton.get_model_repository_index()
    index = index if is_http else index.models
    found = {
        (m["name"], m["version"], m["state"])
        if is_http
        else (m.name, m.version, m.state)
        for m in index
    }
    assert found == {(name, "1", "READY") for name in ["half", "types", "wide"]}


def test_models_that_are_not_ready(start, tmp_path):
    place(tmp_path / "half", 1, "half_plus")
    server = start(*only("half", tmp_path), "--file_system_poll_wait_seconds=1")
    (tmp_path / "half" / "2").mkdir()
    with client(server, "http") as http:
        begun = time.monotonic()
        while len(http.get_model_repository_index()) < 2:
            assert time.monotonic() - begun < 30
            time.sleep(0.1)
    with client(server, "http") as http, client(server, "grpc") as grpc:
        for found in [http, grpc]:
            assert found.is_model_ready("half")
            assert not found.is_model_ready("half", "2")
        (of_2,) = [m for m in http.get_model_repository_index() if m["version"] == "2"]
        assert of_2["state"] in ("LOADING", "UNAVAILABLE") and of_2["reason"]
    assert not client(server, "http").is_model_ready("no")
    fails(lambda: client(server, "grpc").is_model_ready("no"), "Latest(no)")
    code, _, body = server.http("POST", "/v2/repository/index", {"ready": True})
    assert [m["version"] for m in json.loads(body)] == ["1"] and code == 200


def test_health_reflection_metrics_and_access_log(start, base, tmp_path):
    server = start(
        *only("half", base), "--access_log", "--enable_prometheus", log=tmp_path / "log"
    )
    service = "inference.GRPCInferenceService"
    health = health_pb2_grpc.HealthStub(server.channel)
    status = health.Check(health_pb2.HealthCheckRequest(service=service)).status
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert service in ProtoReflectionDescriptorDatabase(server.channel).get_services()
    for kind in KINDS:
        with client(server, kind) as found:
            infer(found, "half", X)
    text = server.http("GET", "/monitoring/prometheus/metrics")[2].decode()
    for line in [
        ':tensorflow:serving:request_count{model_name="half",status="OK"} 2',
        'request_latency_count{API="infer",entrypoint="REST",model_name="half"} 1',
        'request_latency_count{API="ModelInfer",entrypoint="GRPC",model_name="half"} 1',
        'runtime_latency_count{API="ModelInfer",model_name="half",runtime="TF1"} 2',
    ]:
        assert line in text, line
    log = (tmp_path / "log").read_text()
    for api in ["infer", "ModelInfer"]:
        assert re.search(f'api="?{api}"? model="?half', log), log


def test_messages_are_those_of_the_client(half):
    """Every field has the name, number and type that the client's own definition has."""
    database = ProtoReflectionDescriptorDatabase(half.channel)
    theirs = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)
    file = database.FindFileContainingSymbol("inference.ModelInferRequest")

    def fields(message):
        own = {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
        return own | {(m.name, *fields(m)) for m in message.nested_type}

    known = {message.name: message for message in theirs.message_type}
    for message in file.message_type:
        if message.name != "Refused":
            assert fields(message) == fields(known[message.name]), message.name
    (ours,), (their,) = file.service, theirs.service
    assert {m.name for m in ours.method} == {m.name for m in their.method}


def test_paths(half):
    for method, path, code in [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/half/infer", 400),
        ("POST", "/v2/models/half/generate", 501),
        ("GET", "/v20", 404),
    ]:
        assert half.http(method, path)[0] == code, path
    name = urllib.parse.quote("no such/model", safe="")
    body = half.http("GET", f"/v2/models/{name}?a=b")[2]
    assert "Latest(no such/model)" in json.loads(body)["error"]


def test_the_example_of_the_manual(start, base):
    server = start(*only("half", base))
    manual = (ROOT / "docs/server.md").read_text()
    (example,) = re.findall(r"```python\n(.*?tritonclient.*?)```", manual, re.S)
    for port, own in [("8500", server.port), ("8501", server.rest_port)]:
        example = example.replace(f"localhost:{port}", f"localhost:{own}")
    exec(compile(example, "server.md", "exec"), {})
