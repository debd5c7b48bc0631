"""Writes the seeds of `http1`, `http2`, `requests` and `configuration` into fuzz/seeds: requests and files that are
right, so that fuzzing begins behind the first checks. .venv/bin/python fuzz/seeds.py"""

import gzip
import json
import pathlib
import shutil
import sys

import numpy as np
import tensorflow as tf
import tritonclient.grpc.service_pb2 as v2
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

FUZZ = pathlib.Path(__file__).parent
sys.path.append(str(FUZZ.parent / "crates/processor/tests"))
import eas  # noqa: E402


def write(target, seeds):
    folder = FUZZ / "seeds" / target
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, seed in enumerate(seeds):
        (folder / str(number)).write_bytes(seed)


def example(x):
    message = example_pb2.Example()
    message.features.feature["x"].float_list.value.append(x)
    return message


def predict(model, signature, inputs, content=True):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value)
        if not content:
            field = {1: tensor.float_val, 3: tensor.int_val, 9: tensor.int64_val}
            if tensor.dtype in field:
                tensor.ClearField("tensor_content")
                field[tensor.dtype].extend(np.asarray(value).reshape(-1).tolist())
        request.inputs[name].CopyFrom(tensor)
    return request


def of_examples(request, signature):
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    request.input.example_list.examples.extend([example(1), example(2)])
    return request


def multi_inference():
    request = inference_pb2.MultiInferenceRequest()
    for method in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name = "half"
        task.model_spec.signature_name = method
    context = request.input.example_list_with_context
    context.context.CopyFrom(example(5))
    context.examples.add()
    return request


def infer(model, inputs, signature="", raw=True):
    """`inputs`: (name, type, field of contents, shape, values)."""
    request = v2.ModelInferRequest(model_name=model, model_version="1", id="7")
    if signature:
        request.parameters["signature_name"].string_param = signature
    for name, datatype, field, shape, values in inputs:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if not raw:
            getattr(tensor.contents, field).extend(values)
        elif datatype == "BYTES":
            sized = [len(v).to_bytes(4, "little") + v for v in values]
            request.raw_input_contents.append(b"".join(sized))
        else:
            request.raw_input_contents.append(np.float32(values).tobytes())
    request.outputs.add(name="y") if model == "half" else None
    return request


X = np.array([1.5, 2], np.float32)
FLOATS = [("x", "FP32", "fp32_contents", [2], [1.5, 2])]
TEXTS = [("text", "BYTES", "bytes_contents", [2], [b"a B", b"b"])]
STATUS = get_model_status_pb2.GetModelStatusRequest()
STATUS.model_spec.name = "half"
STATUS.model_spec.version.value = 1
METADATA = get_model_metadata_pb2.GetModelMetadataRequest(
    metadata_field=["signature_def"]
)
METADATA.model_spec.name = "half"

MESSAGES = [
    (8, predict("half", "", {"x": X})),
    (8, predict("half", "named", {"x": X, "text": ["a", "b"]}, content=False)),
    (8, predict("batched", "", {"x": X}, content=False)),
    (8, predict("types", "string", {"x": [["a"], ["bc"]]})),
    (8, predict("types", "complex128", {"x": np.array([1 + 2j])})),
    (8, predict("types", "int8", {"x": np.array([[1, 2]], np.int8)})),
    (8, predict("types", "bool", {"x": np.array([True])})),
    (8, predict("types", "float16", {"x": np.array([1, 2], np.float16)})),
    (8, predict("strings", "", {"text": ["a b", "b"]})),
    (9, of_examples(classification_pb2.ClassificationRequest(), "classify")),
    (10, of_examples(regression_pb2.RegressionRequest(), "regress")),
    (11, multi_inference()),
    (12, METADATA),
    (13, STATUS),
    (14, infer("half", FLOATS)),
    (14, infer("half", FLOATS, raw=False)),
    (14, infer("types", FLOATS, "float32")),
    (14, infer("strings", TEXTS)),
    (14, infer("strings", TEXTS, raw=False)),
    (15, v2.ModelMetadataRequest(name="half", version="1")),
]
PATHS = {
    8: "/tensorflow.serving.PredictionService/Predict",
    9: "/tensorflow.serving.PredictionService/Classify",
    10: "/tensorflow.serving.PredictionService/Regress",
    11: "/tensorflow.serving.PredictionService/MultiInference",
    12: "/tensorflow.serving.PredictionService/GetModelMetadata",
    13: "/tensorflow.serving.ModelService/GetModelStatus",
    14: "/inference.GRPCInferenceService/ModelInfer",
    15: "/inference.GRPCInferenceService/ModelMetadata",
}
RAW_TEXT = b"\3\0\0\0a B"


def v2_json(data, **more):
    """A body of KServe's protocol."""
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", **data}
    return json.dumps({"inputs": [tensor], **more}).encode()


BINARY = {"parameters": {"binary_data_size": 8}}
TEXT = {"name": "text", "shape": [1], "datatype": "BYTES"}
BODIES = [
    (0, b'{"instances": [1.5, 2]}'),
    (0, b'{"inputs": [1.5, 2], "signature_name": "predict"}'),
    (
        0,
        b'{"signature_name": "named", "instances": [{"x": 1, "text": {"b64": "YQ=="}}]}',
    ),
    (
        0,
        b'{"signature_name": "named", "inputs": {"x": [1e3], "text": ["\\u00fc\\ud83d\\ude00"]}}',
    ),
    (
        1,
        b'{"signature_name": "classify", "context": {"x": 1}, "examples": [{"x": [2.5]}, {}]}',
    ),
    (2, b'{"signature_name": "regress", "examples": [{"x": 2}]}'),
    (3, b'{"signature_name": "int64", "inputs": [[1, 2], [3, -9223372036854775808]]}'),
    (3, b'{"signature_name": "uint64", "instances": [18446744073709551615]}'),
    (3, b'{"signature_name": "bool", "instances": [true, false]}'),
    (3, b'{"signature_name": "string", "inputs": {"b64": "YWI="}}'),
    (3, b'{"signature_name": "complex64", "inputs": [1]}'),
    (3, b'{"signature_name": "float32", "inputs": [NaN, -Infinity, 1.5e-40]}'),
    (4, b'{"instances": [1, 2, 3]}'),
    (5, v2_json({"data": [1.5, 2]}, id="7", outputs=[{"name": "y"}])),
    (5, v2_json(BINARY, parameters={"binary_data_output": True}) + b"\0" + X.tobytes()),
    (
        6,
        v2_json(
            {"data": [[1.5, 2]], "shape": [1, 2]},
            parameters={"signature_name": "float32"},
        ),
    ),
    (
        6,
        v2_json(
            {"datatype": "INT8", "parameters": {"binary_data_size": 2}},
            parameters={"signature_name": "int8"},
            outputs=[{"name": "y", "parameters": {"binary_data": True}}],
        )
        + b"\0\1\2",
    ),
    (7, json.dumps({"inputs": [{**TEXT, "data": ["a B"]}]}).encode()),
    (
        7,
        json.dumps(
            {"inputs": [{**TEXT, "parameters": {"binary_data_size": len(RAW_TEXT)}}]}
        ).encode()
        + b"\0"
        + RAW_TEXT,
    ),
]
ARRAYS = [
    (16, eas.request({"x": eas.array("FLOAT", [1.5, 2])})),
    (16, eas.request({"x": eas.array("FLOAT", [1])}, "serving_default", ["y"])),
    (
        16,
        eas.request(
            {"x": eas.array("FLOAT", [1]), "text": eas.array("STRING", [b"a"])}, "named"
        ),
    ),
    *(
        (17, eas.request({"x": eas.array(dtype.upper(), [1])}, name))
        for name, dtype in [
            ("float16", "half"),
            ("int8", "int8"),
            ("int64", "int64"),
            ("bool", "bool"),
            ("float64", "double"),
        ]
    ),
    (17, eas.request({"x": eas.array("STRING", [b"a", b"bc"])}, "string")),
]


def head(method, path, body=b"", *fields):
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def http1():
    row = b'{"instances": [1.5, 2]}'
    binary = v2_json(BINARY)
    yield head("GET", "/v1/models/half")
    yield head("GET", "/v1/models/half/versions/1/metadata") + head(
        "GET", "/v1/models/types/labels/a"
    )
    yield head("POST", "/v1/models/half:predict", row, "Connection: keep-alive") * 2
    yield head(
        "POST", "/v1/models/half/versions/1:predict", row, "Expect: 100-continue"
    )
    chunked = b"17\r\n" + row + b"\r\n0\r\n\r\n"
    yield (
        head("POST", "/v1/models/half:predict", b"", "Transfer-Encoding: chunked")
        + chunked
    )
    yield head("OPTIONS", "/v1/models/half", b"", "Origin: http://a")
    yield head("GET", "/monitoring/prometheus/metrics")
    yield (
        head("GET", "/v2/health/ready")
        + head("GET", "/v2")
        + head("GET", "/v2/models/half/versions/1")
    )
    yield head("POST", "/v2/repository/index", b'{"ready": true}')
    size = f"Inference-Header-Content-Length: {len(binary)}"
    yield head("POST", "/v2/models/half/infer", binary + X.tobytes(), size)
    packed = gzip.compress(row, mtime=0)
    yield head("POST", "/v1/models/half:predict", packed, "Content-Encoding: gzip")
    yield b"GET / HTTP/1.0\r\n\r\n"


def frame(kind, flags, stream, payload):
    return (
        len(payload).to_bytes(3, "big")
        + bytes([kind, flags, 0, 0, 0, stream])
        + payload
    )


def field(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


def request(path, message, stream=1, *more):
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"a"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]
    headers = b"".join(field(*one) for one in fields)
    data = b"\0" + len(message).to_bytes(4, "big") + message
    return frame(1, 4, stream, headers) + frame(0, 1, stream, data)


def http2():
    for kind, message in MESSAGES:
        if kind != 8 or message.model_spec.name != "types":
            yield request(PATHS[kind], message.SerializeToString())
    both = [request(PATHS[13], STATUS.SerializeToString(), stream) for stream in (1, 3)]
    yield b"".join(both) + frame(3, 0, 1, b"\0\0\0\x08") + frame(6, 0, 0, bytes(8))
    yield request(PATHS[13], STATUS.SerializeToString(), 1, (b"grpc-timeout", b"10S"))
    yield request("/grpc.health.v1.Health/Check", b"")
    yield request("/grpc.health.v1.Health/Watch", b"") + frame(3, 0, 1, b"\0\0\0\x08")
    yield request(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", b"\x3a\0"
    )
    stream = infer("half", FLOATS).SerializeToString()
    yield request("/inference.GRPCInferenceService/ModelStreamInfer", stream)
    yield (
        frame(8, 0, 0, b"\0\0\1\0")
        + frame(2, 0, 1, b"\0\0\0\0\x10")
        + frame(7, 0, 0, bytes(8))
    )
    yield frame(4, 0, 0, b"\0\4\0\0\0\1") + request(
        PATHS[13], STATUS.SerializeToString()
    )


def configuration():
    model = (
        'config { name: "m" base_path: "/m" model_platform: "tensorflow" model_version_policy { %s } %s'
        ' session_group { session_num: 2 cpuset: "0;1" policy: "thread" execution: "caller" kernels: "auto" } }'
    )
    labels = 'version_labels { key: "stable" value: 3 }'
    yield (
        "0model_config_list {"
        + model % ("specific { versions: 3 versions: 5 }", labels)
        + "}"
    )
    yield (
        "0model_config_list: {"
        + model % ("latest { num_versions: 2 }", "")
        + model % ("all {}", "")
        + "}"
    )
    yield '0custom_model_config { [type.googleapis.com/tensorflow.serving.ModelConfig] { name: "a" } }'
    yield "1max_batch_size { value: 8 } batch_timeout_micros { value: 0 } max_enqueued_batches { value: 9 }"
    yield (
        "1num_batch_threads { value: 4 } allowed_batch_sizes: [2, 8] max_batch_size { value: 64 } "
        "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }"
        " pad_variable_length_inputs: true"
    )
    yield '2prometheus_config { enable: true, path: "/metrics" }  # a comment'
    yield (
        "3"
        + "server_key: '-----BEGIN PRIVATE KEY-----\\nMAA=\\n-----END PRIVATE KEY-----\\n' server_cert:"
        + (
            " '-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n' custom_ca: '' client_verify: true"
        )
    )
    adapter = (
        "[type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig]"
    )
    yield (
        '4platform_configs { key: "tensorflow" value { source_adapter_config { '
        + adapter
        + " { legacy_config {"
        ' session_config { inter_op_parallelism_threads: 2 } saved_model_tags: "serve" } } } } }'
    )
    yield "5intra_op_parallelism_threads: 2 gpu_options { allow_growth: true } device_count { key: 'CPU' value: 1 }"
    yield "6grpc.max_concurrent_streams=10,grpc.keepalive_time_ms=1000,grpc.max_connection_age_ms=2147483647"
    yield "6grpc.max_receive_message_length=-1,grpc.server_handshake_timeout_ms=5,grpc.keepalive_timeout_ms=1"
    yield '6model_checkpoint_path: "m-1"\nall_model_checkpoint_paths: "m-1"\n'
    yield "7" + json.dumps(
        {
            "savedmodel_dir": "/m",
            "checkpoint_dir": "/c",
            "session_num": 2,
            "select_session_policy": "RR",
            "cpusets": "0;1",
            "gpu_ids_list": "0,1",
            "inter_op_parallelism_threads": 3,
            "execution": "worker",
            "signature_name": "s",
            "warmup_file_name": "w",
            "timeline_start_step": 1,
            "timeline_interval_step": 1,
            "timeline_trace_count": 1,
            "timeline_path": "/t",
            "drain_timeout_ms": 5,
            "checkpoint_poll_interval_ms": 10,
        }
    )
    yield '7{"savedmodel_dir": /* the model\'s */ "/m", // "\n"model_store_type": "local", "gpu_ids_list": [0, 1]}'


write("http1", http1())
write("http2", http2())
write("configuration", (text.encode() for text in configuration()))
messages = [(kind, message.SerializeToString()) for kind, message in MESSAGES]
write("requests", (bytes([kind]) + data for kind, data in BODIES + messages + ARRAYS))
