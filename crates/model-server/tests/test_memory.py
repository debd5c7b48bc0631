"""What a request takes in memory stays in proportion to its bytes, whatever these say."""

import gzip
import itertools
import pathlib

import grpc
import pytest
from conftest import Server, place
from tensorflow_serving.apis import (
    inference_pb2,
    predict_pb2,
)
from tritonclient.grpc import service_pb2

SIZE = 8 << 20
# Of the request, and of what the server takes without it.
FACTOR, BESIDE = 40, 64 << 20
V1, V2 = "tensorflow.serving.PredictionService", "inference.GRPCInferenceService"
MODELS = "tensorflow.serving.ModelService"


class Measured:
    """A server whose memory is looked at."""

    def __init__(self, folder):
        self.folder = folder
        place(folder / "half", 1, "half_plus")
        self.start()

    def start(self):
        self.server = Server(
            "--model_name=half",
            f"--model_base_path={self.folder / 'half'}",
            log=self.folder / "log",
        )
        # What the first requests take is there for all.
        for method, body in [("predict", {"instances": [1]}), ("regress", {})]:
            self.http("POST", f"/v1/models/half:{method}", body)
        self.before = status(self, "VmRSS")

    def __getattr__(self, name):
        return getattr(self.server, name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    measured = Measured(tmp_path_factory.mktemp("memory"))
    yield measured
    assert measured.stop() == 0


def status(server, name):
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(name)]
    return int(line.split()[1]) << 10


def growth(server, ask):
    """How many bytes more than at first the server has at most while it is asked."""
    # The peak is that of now.
    pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    answer = ask()
    return status(server, "VmHWM") - server.before, answer


def check(server, size, ask):
    grown, answer = growth(server, ask)
    if grown >= FACTOR * size + BESIDE:
        # What earlier requests took, allocators may still have.
        assert server.stop() == 0
        server.start()
        grown, answer = growth(server, ask)
    assert server.process.poll() is None
    assert grown < FACTOR * size + BESIDE, (
        f"{grown >> 20} MiB, {grown / size:.1f} times the request: {answer}"
    )


def filled(begin, parts, end):
    """A body of about that size, of as many parts as fit."""
    if isinstance(parts, str):
        return begin + parts * (SIZE // len(parts)) + parts.rstrip(",") + end
    size = len(next(iter(parts(0))))
    return begin + "".join(itertools.chain(*map(parts, range(SIZE // size)))) + end


def numbered(text):
    return lambda i: [text.replace("#", f"{i:06x}")]


REST = {
    "lists": ("predict", '{"instances": [', "[],", "]}"),
    "lists of one": ("predict", '{"instances": [', "[1],", "]}"),
    "numbers": ("predict", '{"instances": [', "0,", "]}"),
    "columns": ("predict", '{"inputs": [', "0,", "]}"),
    "rows": ("predict", '{"instances": [', '{"x":0},', "]}"),
    "objects": ("predict", '{"instances": [', "{},", "]}"),
    "strings": (
        "predict",
        '{"signature_name": "named", "inputs": {"text": [',
        '"",',
        "]}}",
    ),
    "objects for strings": (
        "predict",
        '{"signature_name": "named", "inputs": {"x": [1], "text": [',
        "{},",
        "]}}",
    ),
    "members": ("predict", '{"instances": [1], ', '"a":0,', "}"),
    "unknown lists": ("predict", '{"instances": [1], "a": [', "[],", "]}"),
    "members of a row": ("predict", '{"instances": [{', '"a":0,', "}]}"),
    "deep lists": ("predict", '{"instances": [', "[" * 150 + "]" * 150 + ",", "]}"),
    "examples": ("regress", '{"signature_name": "regress", "examples": [', "{},", "]}"),
    "features": (
        "regress",
        '{"signature_name": "regress", "examples": [{',
        numbered('"#":0,'),
        '"b":0}]}',
    ),
    "values": (
        "regress",
        '{"signature_name": "regress", "examples": [{"x": [',
        "0,",
        "]}]}",
    ),
    "bytes": (
        "regress",
        '{"signature_name": "regress", "examples": [{"x": [',
        '"",',
        "]}]}",
    ),
    "examples of one": (
        "regress",
        '{"signature_name": "regress", "examples": [',
        '{"x":0.5},',
        "]}",
    ),
    "inputs": ("infer", '{"inputs": [', "{},", "]}"),
    "named inputs": (
        "infer",
        '{"inputs": [',
        numbered('{"name":"#","shape":[],"datatype":"BOOL","data":0},'),
        '{"name":"x"}]}',
    ),
    "outputs": ("infer", '{"inputs": [], "outputs": [', '{"name":""},', "]}"),
    "parameters": (
        "infer",
        '{"parameters": {',
        numbered('"#":0,'),
        '"b":0}, "inputs": []}',
    ),
    "shape": (
        "infer",
        '{"inputs": [{"name": "x", "datatype": "FP32", "data": [1], "shape": [',
        "1,",
        "]}]}",
    ),
    "data": (
        "infer",
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [',
        "[],",
        "]}]}",
    ),
    "data that is numbers": (
        "infer",
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [',
        "0,",
        "]}]}",
    ),
}


@pytest.mark.parametrize("name", REST)
@pytest.mark.parametrize("packed", [False, True], ids=["", "gzip"])
def test_rest(server, name, packed):
    method, *parts = REST[name]
    body = filled(*parts).encode()
    path = "/v2/models/half/infer" if method == "infer" else f"/v1/models/half:{method}"
    headers = {"Content-Encoding": "gzip"} if packed else {}
    sent = gzip.compress(body, 1) if packed else body

    def ask():
        code, _, answer = server.http("POST", path, sent, headers)
        return code, answer[:300]

    check(server, len(body), ask)


def length(number):
    """As protobuf writes it."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def inside(tags, body):
    """A message in messages, by the numbers of their fields, the outermost first."""
    for tag in reversed(tags):
        body = bytes([tag << 3 | 2]) + length(len(body)) + body
    return body


def many(part):
    return part * (SIZE // len(part))


def entries(tag, value):
    """A map's, each with a name of its own."""
    each = len(inside([tag], inside([1], bytes(4)) + value))
    names = (i.to_bytes(4, "big") for i in range(SIZE // each))
    names = (bytes(b & 127 for b in name) for name in names)
    return b"".join(inside([tag], inside([1], name) + value) for name in names)


TENSOR = predict_pb2.PredictRequest()
TENSOR.model_spec.name = "half"
HALF = TENSOR.SerializeToString()
V2_HALF = service_pb2.ModelInferRequest(model_name="half").SerializeToString()
SPEC = inference_pb2.InferenceTask()
KEY = b"\x0a\x01x"
INPUT = inside([1], b"x") + inside([2], b"FP32")
GRPC = {
    "inputs": (f"{V1}/Predict", HALF + entries(2, b"")),
    "strings": (
        f"{V1}/Predict",
        HALF + inside([2], KEY + inside([2], b"\x08\x07" + many(b"\x42\0"))),
    ),
    "sizes": (
        f"{V1}/Predict",
        HALF + inside([2], KEY + inside([2, 2], many(b"\x12\0"))),
    ),
    "numbers": (
        f"{V1}/Predict",
        HALF + inside([2], KEY + inside([2], b"\x08\x09" + inside([10], bytes(SIZE)))),
    ),
    "numbers one by one": (
        f"{V1}/Predict",
        HALF + inside([2], KEY + inside([2], b"\x08\x09" + many(b"\x50\0"))),
    ),
    "filter": (f"{V1}/Predict", HALF + many(b"\x1a\0")),
    "unknown fields": (f"{V1}/Predict", HALF + many(b"\x7a\0")),
    "groups": (f"{V1}/Predict", HALF + many(b"\x7b\x7c")),
    "examples": (f"{V1}/Regress", HALF + inside([2, 1], many(b"\x0a\0"))),
    "examples of nothing": (f"{V1}/Classify", HALF + inside([2, 2], many(b"\x0a\0"))),
    "features": (f"{V1}/Classify", HALF + inside([2, 1, 1, 1], entries(1, b""))),
    "values": (
        f"{V1}/Classify",
        HALF + inside([2, 1, 1, 1, 1], KEY + inside([2, 1], many(b"\x0a\0"))),
    ),
    "tasks": (f"{V1}/MultiInference", many(b"\x0a\0")),
    "models": (
        f"{MODELS}/HandleReloadConfigRequest",
        inside([1, 1], many(b"\x0a\0")[: 3 << 20]),
    ),
    "v2 inputs": (f"{V2}/ModelInfer", V2_HALF + many(b"\x2a\0")),
    "v2 outputs": (f"{V2}/ModelInfer", V2_HALF + many(b"\x32\0")),
    "v2 raw": (f"{V2}/ModelInfer", V2_HALF + many(b"\x3a\0")),
    "v2 parameters": (f"{V2}/ModelInfer", V2_HALF + entries(4, b"")),
    "v2 strings": (
        f"{V2}/ModelInfer",
        V2_HALF + inside([5], INPUT + inside([5], many(b"\x42\0"))),
    ),
    "v2 numbers": (
        f"{V2}/ModelInfer",
        V2_HALF + inside([5], INPUT + inside([5, 3], bytes(SIZE))),
    ),
    "v2 shape": (
        f"{V2}/ModelInfer",
        V2_HALF + inside([5], INPUT + inside([3], b"\1" * SIZE)),
    ),
}


@pytest.mark.parametrize("name", GRPC)
@pytest.mark.parametrize("packed", [False, True], ids=["", "gzip"])
def test_grpc(server, name, packed):
    method, body = GRPC[name]

    def ask():
        call = server.channel.unary_unary(f"/{method}")
        compression = grpc.Compression.Gzip if packed else None
        try:
            return call(body, timeout=60, compression=compression)[:300]
        except grpc.RpcError as error:
            return error.code(), error.details()[:300]

    check(server, len(body), ask)


def test_a_message_in_messages_without_end(server):
    """As far as they may be nested, decoding takes stack."""
    body = inside([5, 5] + [5] * 10_000, b"")
    call = server.channel.unary_unary(f"/{V2}/ModelInfer")
    with pytest.raises(grpc.RpcError):
        call(body, timeout=60)
    assert server.process.poll() is None


def test_a_bomb(tmp_path):
    place(tmp_path / "half", 1, "half_plus")
    server = Server(
        "--model_name=half",
        f"--model_base_path={tmp_path / 'half'}",
        f"--max_request_bytes={1 << 20}",
    )
    server.before = status(server, "VmRSS")
    try:
        for method in ["Predict", "Classify"]:
            call = server.channel.unary_unary(f"/{V1}/{method}")

            def ask(call=call):
                with pytest.raises(grpc.RpcError) as error:
                    call(
                        bytes(256 << 20), timeout=60, compression=grpc.Compression.Gzip
                    )
                return error.value.details()

            grown, says = growth(server, ask)
            assert grown < 32 << 20 and "size limit" in says, (grown, says)
        bomb = gzip.compress(bytes(256 << 20), 9)
        for path in ["/v1/models/half:predict", "/v2/models/half/infer"]:
            headers = {"Content-Encoding": "gzip"}
            grown, answer = growth(
                server, lambda: server.http("POST", path, bomb, headers)
            )
            assert grown < 32 << 20 and answer[0] >= 400, (grown, answer)
    finally:
        assert server.stop() == 0
