"""What plain HTTP clients see: paths, bodies, codes and texts are those of TensorFlow Serving."""

import base64
import gzip
import json
import math

import numpy as np
import pytest
import tensorflow as tf

MODEL = "/v1/models/half"


def error(server, path, body, code=400, method="POST", headers=None):
    got, found, answer = server.http(method, path, body, headers)
    assert (got, found["Content-Type"]) == (code, "application/json"), answer
    return json.loads(answer)["error"]


def test_rows(half):
    code, headers, body = half.http(
        "POST", f"{MODEL}:predict", {"instances": [1.0, 2, 5.0]}
    )
    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert body == b'{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    by_name = half.rest(f"{MODEL}:predict", {"instances": [{"x": 1.0}, {"x": 2.0}]})
    assert by_name == {"predictions": [2.5, 3]}
    path = f"{MODEL}/versions/1:predict"
    assert half.rest(path, {"instances": [4]}) == {"predictions": [4]}


def test_several_outputs(half):
    rows = [{"x": 1.0, "text": "a"}, {"x": 2.0, "text": {"b64": "AP8="}}]
    answer = half.rest(
        f"{MODEL}:predict", {"signature_name": "named", "instances": rows}
    )
    assert answer == {
        "predictions": [
            {"text_bytes": {"b64": "YQ=="}, "y": 2.5},
            {"text_bytes": {"b64": "AP8="}, "y": 3},
        ]
    }
    columns = {"x": [1.0, 2.0], "text": ["a", "b"]}
    answer = half.rest(
        f"{MODEL}:predict", {"signature_name": "named", "inputs": columns}
    )
    assert answer["outputs"]["y"] == [2.5, 3]
    assert answer["outputs"]["text_bytes"] == [{"b64": "YQ=="}, {"b64": "Yg=="}]


def test_columns(half):
    _, _, body = half.http("POST", f"{MODEL}:predict", {"inputs": [1.0, 2.0]})
    assert body == b'{\n    "outputs": [\n        2.5,\n        3.0\n    ]\n}'
    assert half.rest(f"{MODEL}:predict", {"inputs": {"x": [2]}}) == {"outputs": [3]}


def types(server, name, value, form="inputs"):
    body = json.dumps({"signature_name": name, form: value})
    return server.rest("/v1/models/types:predict", body)[
        "outputs" if form == "inputs" else "predictions"
    ]


@pytest.mark.parametrize(
    "name, value",
    [
        ("float32", [[1.5, -2.0], [3.25, 1e10]]),
        ("float64", 0.1),
        ("float16", [1.5, -2.0, 65504.0]),
        ("bfloat16", [[1.5], [-2.0]]),
        ("int8", [-128, 127]),
        ("int16", [-32768, 32767]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint8", [0, 255]),
        ("uint16", [0, 65535]),
        ("uint32", [0, 2**32 - 1]),
        ("uint64", [0, 2**64 - 1]),
        ("bool", [True, False]),
        ("string", ["a", "", "ü", 'a "b" \\ \n']),
        ("float32", []),
        ("float32", [[], []]),
    ],
)
def test_types(half, name, value):
    assert types(half, name, value) == value
    if isinstance(value, list) and value:
        assert types(half, name, value, "instances") == value


def test_nan_and_infinity(half):
    body = '{"signature_name": "float32", "inputs": [NaN, Infinity, -Infinity]}'
    _, _, answer = half.http("POST", "/v1/models/types:predict", body)
    assert b"NaN,\n        Infinity,\n        -Infinity\n" in answer
    found = json.loads(answer)["outputs"]
    assert math.isnan(found[0])


@pytest.mark.parametrize(
    "name, value",
    [
        ("int8", "200"),
        ("int8", "-129"),
        ("uint8", "-1"),
        ("uint8", "256"),
        ("int16", "32768"),
        ("uint16", "-1"),
        ("uint16", "65536"),
        ("int32", "2147483648"),
        ("int64", "9223372036854775808"),
        ("uint32", "-1"),
        ("uint64", "18446744073709551616"),
        ("float16", "65520"),
        ("bfloat16", "1e39"),
        ("float32", "1e39"),
        ("float32", "-1" + 39 * "0"),
        ("float64", "1" + 400 * "0"),
    ],
)
def test_numbers_must_fit(half, name, value):
    body = f'{{"signature_name": "{name}", "inputs": [1, {value}]}}'
    text = error(half, "/v1/models/types:predict", body)
    name = {"float32": "float", "float64": "double", "float16": "half"}.get(name, name)
    assert text.endswith(f"Type: Number is not of expected type: {name}")


def test_halves_are_rounded_once(half):
    for name in ["float16", "bfloat16"]:
        values = [0.1, 1 / 3, 2049.0, 1e-7]
        as_type = [float(v) for v in np.array(values, tf.as_dtype(name).as_numpy_dtype)]
        assert np.float32(types(half, name, values)).tolist() == as_type
    body = '{"signature_name": "float16", "inputs": [NaN, -Infinity]}'
    _, _, answer = half.http("POST", "/v1/models/types:predict", body)
    assert b"NaN,\n        -Infinity" in answer


def test_types_that_json_does_not_have(half):
    body = {"signature_name": "complex64", "inputs": [1.0]}
    text = error(half, "/v1/models/types:predict", body, 501)
    assert text == "Conversion of JSON Value: 1.0 to type: complex64"
    body = {"signature_name": "complex64", "instances": [1.0]}
    text = error(half, "/v1/models/types:predict", body)
    assert text.startswith(
        "Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED"
    )


BODIES = [
    ("", "JSON Parse error: The document is empty"),
    ("   ", "JSON Parse error: The document is empty. at offset:"),
    ("instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
    (
        "{} {}",
        "JSON Parse error: The document root must not be followed by other values.",
    ),
    ("[1]", "Is not object"),
    ("{}", "Missing 'inputs' or 'instances' key"),
    (
        '{"inputs": 1, "instances": [1]}',
        "expecting only one of 'inputs' or 'instances' keys",
    ),
    ('{"instances": 1}', "Expecting 'instances' to be an list/array"),
    ('{"instances": []}', "No values in 'instances' array"),
    (
        '{"signature_name": 5, "instances": [1]}',
        "'signature_name' key must be a string value.",
    ),
    (
        '{"signature_name": "no", "instances": [1]}',
        'Serving signature name: "no" not found in signature def',
    ),
    (
        '{"instances": ["x"]}',
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"x\" "
        "Type: String is not of expected type: float",
    ),
    ('{"instances": [1, [2]]}', "Expecting shape [] but got: [1]"),
    ('{"instances": [1, [2, 3]]}', "Expecting tensor size: 1 but got: 2"),
    (
        '{"instances": [1, {"x": 2}]}',
        "Expecting value/list but got object at item 1 of input list",
    ),
    (
        '{"instances": [{"x": 2}, 1]}',
        "Expecting object but got list at item 1 of input list",
    ),
    ('{"instances": [{"z": 2}]}', "JSON object: does not have named input: z"),
    ('{"instances": [{}]}', "keys must be equal to: x"),
    ('{"inputs": {"z": [1]}}', "Missing named input: x in 'inputs' object."),
    (
        '{"inputs": [[1, 2], [3]]}',
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    (
        '{"inputs": [1, [2]]}',
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    (
        '{"inputs": [[1], 2]}',
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    (
        '{"signature_name": "named", "instances": [1]}',
        "instances is a plain list, but expecting list of objects",
    ),
    (
        '{"signature_name": "named", "inputs": [1]}',
        "inputs is a plain value/list, but expecting an object",
    ),
    (
        '{"signature_name": "named", "inputs": {"x": [1], "text": {"b64": "?"}}}',
        "Unable to base64 decode",
    ),
    (
        '{"signature_name": "named", "inputs": {"x": [1], "text": {"b65": "YQ=="}}}',
        "not formatted correctly for base64 data",
    ),
]


@pytest.mark.parametrize("body, text", BODIES, ids=[text[:40] for _, text in BODIES])
def test_bodies(half, body, text):
    assert text in error(half, f"{MODEL}:predict", body)


def test_a_deeply_nested_body_is_refused(half):
    body = '{"instances": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert "JSON Parse error" in error(half, f"{MODEL}:predict", body)


@pytest.mark.parametrize(
    "method, path, code, text",
    [
        (
            "POST",
            "/v1/models/no:predict",
            404,
            "Servable not found for request: Latest(no)",
        ),
        (
            "POST",
            f"{MODEL}/versions/9:predict",
            404,
            "Servable not found for request: Specific(half, 9)",
        ),
        (
            "POST",
            f"{MODEL}/labels/x:predict",
            400,
            "Unrecognized servable version label: x",
        ),
        ("GET", f"{MODEL}:predict", 400, f"Malformed request: GET {MODEL}:predict"),
        ("POST", MODEL, 400, f"Malformed request: POST {MODEL}"),
        (
            "POST",
            f"{MODEL}:predict?a=b",
            400,
            f"Malformed request: POST {MODEL}:predict?a=b",
        ),
        ("DELETE", MODEL, 400, f"Malformed request: DELETE {MODEL}"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        ("GET", f"{MODEL}/versions/7", 404, "Could not find version 7 of model half"),
        (
            "GET",
            "/v1/models/no/metadata",
            404,
            "Servable not found for request: Latest(no)",
        ),
    ],
)
def test_paths(half, method, path, code, text):
    body = '{"instances": [1]}' if method == "POST" else None
    assert error(half, path, body, code, method) == text


def test_other_paths_are_not_found(half):
    code, headers, body = half.http("GET", "/index.html")
    assert (code, headers["Content-Type"]) == (404, "text/html")
    assert b"404 Not Found" in body
    code, _, body = half.http(
        "POST", f"{MODEL}/versions/18446744073709551615:predict", "{}"
    )
    assert (code, body) == (400, b"")


def test_status(half):
    _, _, body = half.http("GET", MODEL)
    expected = {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert body.decode() == json.dumps(expected, indent=1) + "\n"
    assert half.rest(f"{MODEL}/versions/1") == expected


def test_metadata(half):
    answer = half.rest(f"{MODEL}/metadata")
    assert answer["model_spec"] == {
        "name": "half",
        "signature_name": "",
        "version": "1",
    }
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["named"]["inputs"]["text"] == {
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
        "name": "text:0",
    }
    assert signatures["classify"]["method_name"] == "tensorflow/serving/classify"


def test_explain(half):
    half.rest(f"{MODEL}:predict", {"instances": [1]})
    answer = half.rest(f"{MODEL}/versions/1:explain")
    assert answer["model_spec"] == {"name": "half", "version": "1"}
    explained = answer["explain"]
    names = ["x:0"], ["y:0"]
    all_of = explained["signatures"]
    [signature] = [s for s in all_of if (s["feeds"], s["fetches"]) == names]
    assert (signature["runs_as"], signature["why"]) == ("program", None)
    assert explained["requests"]["ways"]["program"] > 0
    assert [session["session"] for session in explained["sessions"]] == [0, 1]
    assert error(half, "/v1/models/no:explain", None, 404, "GET") == (
        "Servable not found for request: Latest(no)"
    )


def test_classify(half):
    body = {"signature_name": "classify", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    _, _, answer = half.http("POST", f"{MODEL}:classify", body)
    assert answer == (
        b'{\n    "results": [[["low", -3.0], ["high", 3.0]], [["low", -4.0], ["high", 4.0]]\n    ]\n}'
    )
    body = {"signature_name": "classify", "context": {"x": 8.0}, "examples": [{}]}
    assert half.rest(f"{MODEL}:classify", body)["results"][0][1] == ["high", 6]


def test_regress(half):
    body = {"signature_name": "regress", "examples": [{"x": 2.0}, {"x": 4.0}]}
    _, _, answer = half.http("POST", f"{MODEL}:regress", body)
    assert answer == b'{\n    "results": [3.0, 4.0]\n}'


@pytest.mark.parametrize(
    "body, text",
    [
        ({}, "When method is regress, key 'examples' is expected and was not found"),
        ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        (
            {"examples": [{"x": [1.0, 2]}]},
            "Unexpected element type in feature: x expecting type: float",
        ),
        (
            {"examples": [{"x": [[1.0]]}]},
            "Feature: x has element with unexpected JSON type: Array",
        ),
        (
            {"examples": [{"x": 2**64 - 1}]},
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
        ({"examples": [{"x": 1}]}, "expected type: float"),
        (
            {"signature_name": "classify", "examples": [{"x": 1.0}]},
            "Expected one output Tensor.",
        ),
    ],
)
def test_example_mistakes(half, body, text):
    body.setdefault("signature_name", "regress")
    assert text in error(half, f"{MODEL}:regress", body)


def test_gzip(half):
    packed = gzip.compress(b'{"instances": [1.0]}')
    headers = {"Content-Encoding": "gzip"}
    code, found, body = half.http("POST", f"{MODEL}:predict", packed, headers)
    assert code == 200 and "Content-Encoding" not in found
    assert json.loads(body) == {"predictions": [2.5]}
    text = error(half, f"{MODEL}:predict", b"no gzip", headers=headers)
    assert text == "JSON Parse error: The document is empty"
    bomb = gzip.compress(b" " * (101 << 20))
    text = error(half, f"{MODEL}:predict", bomb, headers=headers)
    assert text == "JSON Parse error: The document is empty"


def test_options_without_cors(half):
    origin = {"Origin": "https://example.com"}
    code, headers, body = half.http("OPTIONS", f"{MODEL}:predict", headers=origin)
    assert (code, body) == (200, b"") and "Access-Control-Allow-Origin" not in headers
    assert half.http("OPTIONS", f"{MODEL}:predict")[0] == 400


def test_metrics(half):
    half.rest(f"{MODEL}:predict", {"instances": [1]})
    half.http("POST", "/v1/models/no:predict", {"instances": [1]})
    code, headers, body = half.http("GET", "/monitoring/prometheus/metrics")
    assert (code, headers["Content-Type"]) == (200, "text/plain")
    text = body.decode()
    for line in [
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="half",status="OK"}',
        ':tensorflow:serving:request_count{model_name="",status="NOT_FOUND"}',
        ':tensorflow:serving:request_latency_bucket{API="predict",entrypoint="REST",model_name="half",le="18"}',
        ':tensorflow:serving:runtime_latency_count{API="Predict",model_name="half",runtime="TF1"}',
        "session_group_requests_total{",
    ]:
        assert line in text, line
    by_way = [line for line in text.splitlines() if "requests_by_way_total{" in line]
    assert any(
        all(label in line for label in ['model_name="half"', 'way="program"'])
        for line in by_way
    ), by_way


def test_strings_may_be_bytes(half):
    data = bytes(range(256))
    packed = base64.b64encode(data).decode()
    body = {"signature_name": "named", "inputs": {"x": [1], "text": [{"b64": packed}]}}
    answer = half.rest(f"{MODEL}:predict", body)
    assert base64.b64decode(answer["outputs"]["text_bytes"][0]["b64"]) == data


def test_strings_that_are_no_utf8_are_base64(half):
    packed = {"b64": base64.b64encode(b"a\xff").decode()}
    text = {"b64": base64.b64encode("ü".encode()).decode()}
    for form in ["inputs", "instances"]:
        assert types(half, "string", [packed, "b", text], form) == [packed, "b", "ü"]


def test_a_byte_order_mark(half):
    body = b"\xef\xbb\xbf" + json.dumps({"instances": [1]}).encode()
    assert half.rest(f"{MODEL}:predict", body) == {"predictions": [2.5]}
    examples = {"signature_name": "regress", "examples": [{"x": 1e39}]}
    assert "1e39, which is out of the range" in error(
        half, f"{MODEL}:regress", examples
    )
