"""What TensorFlow Serving's own Python client sees over gRPC."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import MODELS
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

CODES = grpc.StatusCode


def request(model="half", signature="", inputs=None, outputs=(), version=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in (inputs or {}).items():
        is_proto = hasattr(value, "tensor_shape")
        request.inputs[name].CopyFrom(
            value if is_proto else tf.make_tensor_proto(value)
        )
    request.output_filter.extend(outputs)
    return request


def predict(server, *arguments, **options):
    return server.predict.Predict(request(*arguments, **options), timeout=60)


def fails(code, text, call):
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert (error.value.code(), text in error.value.details()) == (code, True), (
        error.value
    )


def values(proto):
    return tf.make_ndarray(proto)


def examples(*xs, context=None):
    def example(**features):
        message = tf.train.Example()
        for name, value in features.items():
            message.features.feature[name].float_list.value.append(value)
        return message

    if context is not None:
        data = input_pb2.Input()
        data.example_list_with_context.context.CopyFrom(example(x=context))
        data.example_list_with_context.examples.extend(
            example() if x is None else example(x=x) for x in xs
        )
        return data
    return input_pb2.Input(
        example_list=input_pb2.ExampleList(examples=[example(x=x) for x in xs])
    )


def test_predict(half):
    answer = predict(half, inputs={"x": [1.0, 2.0, 5.0]})
    assert values(answer.outputs["y"]).tolist() == [2.5, 3.0, 4.5]
    assert answer.outputs["y"].float_val == [2.5, 3.0, 4.5]
    assert answer.model_spec.name == "half"
    assert answer.model_spec.signature_name == "serving_default"
    assert answer.model_spec.version.value == 1
    assert set(predict(half, version=1, inputs={"x": [0.0]}).outputs) == {"y"}


def test_output_filter(half):
    inputs = {"x": [1.0], "text": ["a"]}
    assert set(predict(half, signature="named", inputs=inputs).outputs) == {
        "y",
        "text_bytes",
    }
    some = predict(half, signature="named", inputs=inputs, outputs=["text_bytes"])
    assert set(some.outputs) == {"text_bytes"}
    for outputs, text in [
        (
            ["z"],
            "output tensor alias not found in signature: z Outputs expected to be in the set {text_bytes,y}.",
        ),
        (["y", "y"], "duplicate output tensor alias: y"),
    ]:
        fails(
            CODES.INVALID_ARGUMENT,
            text,
            lambda: predict(half, signature="named", inputs=inputs, outputs=outputs),
        )


TYPES = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128"


@pytest.mark.parametrize("name", TYPES.split())
def test_types(half, name):
    dtype = tf.as_dtype(name).as_numpy_dtype
    for array in [
        np.array([[1, 0, 1], [0, 1, 1]], dtype),
        np.array(1, dtype),
        np.zeros([0, 3], dtype),
        (np.arange(100_000) % 100).astype(dtype),
    ]:
        content = tf.make_tensor_proto(array)
        typed = type(content)(dtype=content.dtype, tensor_shape=content.tensor_shape)
        field = {
            "float16": "half_val",
            "bfloat16": "half_val",
            "float32": "float_val",
            "float64": "double_val",
            "int64": "int64_val",
            "uint32": "uint32_val",
            "uint64": "uint64_val",
            "bool": "bool_val",
            "complex64": "scomplex_val",
            "complex128": "dcomplex_val",
        }.get(name, "int_val")
        flat = array.flatten()
        if field == "half_val":
            flat = flat.view(np.uint16)
        if field.endswith("complex_val"):
            flat = flat.view(np.float32 if name == "complex64" else np.float64)
        getattr(typed, field).extend(flat.tolist())
        for proto in [content, typed]:
            y = predict(half, "types", name, {"x": proto}).outputs["y"]
            assert values(y).dtype == array.dtype
            assert values(y).shape == array.shape
            assert values(y).tobytes() == array.tobytes()


def test_strings(half):
    for array in [["a", "", "ü" * 1000], "alone", [], [["a"], ["b"]]]:
        array = np.array(array, object) if array else np.zeros([0], object)
        y = predict(
            half, "types", "string", {"x": tf.make_tensor_proto(array, tf.string)}
        )
        expected = [str(text).encode() for text in array.flatten()]
        assert values(y.outputs["y"]).flatten().tolist() == expected
    raw = tf.make_tensor_proto([b"\x00\xff"])
    assert predict(half, "types", "string", {"x": raw}).outputs["y"].string_val == [
        b"\x00\xff"
    ]


def test_large(half):
    array = np.random.default_rng(1).random([4000, 2000], np.float32)  # 32 MB
    y = predict(half, "types", "float32", {"x": array}).outputs["y"]
    assert np.array_equal(values(y), array)


def test_few_values_are_repeated(half):
    proto = tf.make_tensor_proto([0.0] * 6)
    proto.ClearField("tensor_content")
    proto.ClearField("float_val")
    proto.float_val.extend([3.0, 7.0])
    y = predict(half, "types", "float32", {"x": proto}).outputs["y"]
    assert values(y).tolist() == [3, 7, 7, 7, 7, 7]


def test_real_model(half):
    model = tf.saved_model.load(str(MODELS / "wide_deep"))
    rng = np.random.default_rng(2)
    inputs = {
        "ids": rng.integers(0, 1000, [5, 26]),
        "dense": rng.random([5, 13], np.float32),
        "country": np.array([b"at", b"us", b"xx", b"", b"de"]),
    }
    expected = model.signatures["serving_default"](
        **{k: tf.constant(v) for k, v in inputs.items()}
    )
    got = values(predict(half, "wide", inputs=inputs).outputs["score"])
    np.testing.assert_allclose(got, expected["score"].numpy(), rtol=1e-5)


def wrong_size():
    proto = tf.make_tensor_proto(np.zeros([4], np.float32))
    proto.tensor_content = b"123"
    return proto


MISTAKES = [
    (dict(model=""), CODES.INVALID_ARGUMENT, "ModelSpec has no name specified."),
    (dict(model="no"), CODES.NOT_FOUND, "Servable not found for request: Latest(no)"),
    (
        dict(version=7),
        CODES.NOT_FOUND,
        "Servable not found for request: Specific(half, 7)",
    ),
    (
        dict(version=0),
        CODES.NOT_FOUND,
        "Servable not found for request: Specific(half, 0)",
    ),
    (
        dict(signature="no"),
        CODES.FAILED_PRECONDITION,
        'Serving signature key "no" not found.',
    ),
    (
        dict(inputs={}),
        CODES.INVALID_ARGUMENT,
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    ),
    (
        dict(inputs={"x": [1.0], "z": [1.0]}),
        CODES.INVALID_ARGUMENT,
        "input size does not match signature: 2!=1 len({x,z}) != len({x}). Sent extra: {z}. Missing but required: {}.",
    ),
    (
        dict(inputs={"z": [1.0]}),
        CODES.INVALID_ARGUMENT,
        "Signature input alias: x(feed name: x:0) not found in request and no default value provided.",
    ),
    (dict(inputs={"x": ["text"]}), CODES.INVALID_ARGUMENT, "string"),
    (
        dict(inputs={"x": wrong_size()}),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
    (
        dict(
            inputs={
                "x": type(wrong_size())(dtype=1, tensor_shape=dict(unknown_rank=True))
            }
        ),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
    (
        dict(
            inputs={
                "x": type(wrong_size())(
                    dtype=10, tensor_shape=dict(dim=[dict(size=2**40)])
                )
            }
        ),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
    (
        dict(
            inputs={
                "x": type(wrong_size())(
                    dtype=1, tensor_shape=dict(dim=[dict(size=1)] * 255)
                )
            }
        ),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
    (
        dict(
            inputs={
                "x": type(wrong_size())(
                    dtype=1,
                    tensor_shape=dict(dim=[dict(size=n) for n in [2**63 - 1, 2, 0]]),
                )
            }
        ),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
    (
        dict(inputs={"x": type(wrong_size())()}),
        CODES.INVALID_ARGUMENT,
        "tensor parsing error: x",
    ),
]


@pytest.mark.parametrize(
    "arguments, code, text", MISTAKES, ids=[m[2][:30] for m in MISTAKES]
)
def test_mistakes(half, arguments, code, text):
    fails(code, text, lambda: predict(half, **{"inputs": {"x": [1.0]}, **arguments}))


def test_no_model_spec(half):
    for call, request in [
        (half.predict.Predict, predict_pb2.PredictRequest()),
        (half.predict.Classify, classification_pb2.ClassificationRequest()),
        (
            half.predict.GetModelMetadata,
            get_model_metadata_pb2.GetModelMetadataRequest(),
        ),
        (half.models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest()),
    ]:
        fails(CODES.INVALID_ARGUMENT, "Missing ModelSpec", lambda: call(request))


def test_classify(half):
    request = classification_pb2.ClassificationRequest(input=examples(2.0, 4.0))
    request.model_spec.name, request.model_spec.signature_name = "half", "classify"
    answer = half.predict.Classify(request)
    found = [
        [(c.label, c.score) for c in row.classes]
        for row in answer.result.classifications
    ]
    assert found == [[("low", -3), ("high", 3)], [("low", -4), ("high", 4)]]
    assert answer.model_spec.signature_name == "classify"
    assert answer.model_spec.version.value == 1


def test_regress(half):
    request = regression_pb2.RegressionRequest(input=examples(2.0, None, context=8.0))
    request.model_spec.name, request.model_spec.signature_name = "half", "regress"
    answer = half.predict.Regress(request)
    assert [one.value for one in answer.result.regressions] == [3, 6]


@pytest.mark.parametrize("signature", ["", "no", "regress"])
def test_classify_mistakes(half, signature):
    request = classification_pb2.ClassificationRequest(input=examples(2.0))
    request.model_spec.name, request.model_spec.signature_name = "half", signature
    text = {
        "": "No classification inputs found in SignatureDef",
        "no": "No signature was found with the name: no",
        "regress": 'to contain at least one of "classes" or "scores"',
    }
    fails(
        CODES.INVALID_ARGUMENT, text[signature], lambda: half.predict.Classify(request)
    )


def test_no_examples(half):
    for data in [input_pb2.Input(), examples()]:
        request = regression_pb2.RegressionRequest(input=data)
        request.model_spec.name, request.model_spec.signature_name = "half", "regress"
        fails(
            CODES.INVALID_ARGUMENT,
            "Input is empty.",
            lambda: half.predict.Regress(request),
        )


def multi(*tasks):
    request = inference_pb2.MultiInferenceRequest(input=examples(2.0))
    for name, signature, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = name, signature
    return request


def test_multi_inference(half):
    request = multi(("half", "regress", "regress"), ("half", "classify", "classify"))
    regress, classify = half.predict.MultiInference(request).results
    assert regress.regression_result.regressions[0].value == 3
    assert classify.classification_result.classifications[0].classes[1].score == 3
    assert classify.model_spec.signature_name == "classify"
    r = ("half", "regress", "regress")
    for tasks, code, text in [
        ([], CODES.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ([r, r], CODES.INVALID_ARGUMENT, "Duplicate evaluation of signature: regress"),
        (
            [r, ("types", "x", "regress")],
            CODES.INVALID_ARGUMENT,
            "must access the same model name",
        ),
        (
            [("half", "no", "regress")],
            CODES.INVALID_ARGUMENT,
            "Requested signature not found",
        ),
        (
            [("half", "regress", "predict")],
            CODES.UNIMPLEMENTED,
            "Unsupported signature method_name",
        ),
    ]:
        fails(code, text, lambda: half.predict.MultiInference(multi(*tasks)))


def test_metadata(half):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "half"
    answer = half.predict.GetModelMetadata(request)
    assert answer.model_spec.version.value == 1
    found = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    assert found.signature_def["named"].inputs["text"].name == "text:0"
    assert found.signature_def["regress"].method_name == "tensorflow/serving/regress"
    del request.metadata_field[:]
    text = "GetModelMetadataRequest must specify at least one metadata_field"
    fails(CODES.INVALID_ARGUMENT, text, lambda: half.predict.GetModelMetadata(request))
    request.metadata_field.append("foo")
    text = "Metadata field foo is not supported"
    fails(CODES.INVALID_ARGUMENT, text, lambda: half.predict.GetModelMetadata(request))


def test_status(half):
    assert half.status("half") == {1: "AVAILABLE"}
    fails(
        CODES.NOT_FOUND,
        "Could not find any versions of model no",
        lambda: half.status("no"),
    )
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version.value = "half", 9
    text = "Could not find version 9 of model half"
    fails(CODES.NOT_FOUND, text, lambda: half.models.GetModelStatus(request))


def test_health(half):
    health = health_pb2_grpc.HealthStub(half.channel)
    for service in [
        "",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "PredictionService",
        "ModelService",
    ]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    unknown = health_pb2.HealthCheckRequest(service="no")
    fails(CODES.NOT_FOUND, "", lambda: health.Check(unknown))


def test_reflection(half):
    services = ProtoReflectionDescriptorDatabase(half.channel).get_services()
    assert "tensorflow.serving.PredictionService" in services
    assert "tensorflow.serving.ModelService" in services


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(half, kind):
    target = f"localhost:{half.port}"
    with grpc.insecure_channel(target, compression=kind) as channel:
        ones = request(inputs={"x": [1.0] * 1000})
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert values(stub.Predict(ones).outputs["y"]).tolist() == [2.5] * 1000
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "half"
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.GetModelStatus(status).model_version_status
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest())
        health.Watch(health_pb2.HealthCheckRequest()).next()
        assert ProtoReflectionDescriptorDatabase(channel).get_services()


def test_numbers_must_fit(half):
    for name, field, value in [
        ("int8", "int_val", 200),
        ("uint8", "int_val", -1),
        ("uint16", "int_val", 65536),
        ("float16", "half_val", 70000),
    ]:
        proto = tf.make_tensor_proto(1, getattr(tf, name))
        proto.ClearField("tensor_content")
        proto.ClearField(field)
        getattr(proto, field).append(value)
        text = f"{value} is out of the range of DT_"
        fails(
            CODES.INVALID_ARGUMENT,
            text,
            lambda: predict(half, "types", name, {"x": proto}),
        )


def test_sparse_tensors_are_named(half):
    fails(
        CODES.UNIMPLEMENTED,
        '"x": an input or output of the signature is made of several tensors',
        lambda: predict(half, "types", "sparse", {"x": [1.0]}),
    )


def test_garbage_is_refused(half):
    method = "/tensorflow.serving.PredictionService/Predict"
    call = half.channel.unary_unary(method)
    fails(CODES.INTERNAL, "", lambda: call(b"\xff\xff\xff"))
    unknown = half.channel.unary_unary("/tensorflow.serving.PredictionService/Nothing")
    fails(CODES.UNIMPLEMENTED, "", lambda: unknown(b""))


# Messages of the client's that the server knows a part of, or more.
PARTS = {
    "ModelConfig": {"session_group"},
}
STREAMED = {
    "predict_streamed_options",
    "client_id",
    "request_options",
    "predict_streamed_log",
}
STREAMED |= {"log_metadata", "session_run_log"}


@pytest.mark.parametrize(
    "module",
    [
        predict_pb2,
        classification_pb2,
        regression_pb2,
        inference_pb2,
        input_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_server_config_pb2,
        prediction_log_pb2,
    ],
    ids=lambda module: module.__name__.split(".")[-1],
)
def test_messages_are_those_of_the_client(half, module):
    """Every field has the name, number and type that the client's own definition has."""
    database = ProtoReflectionDescriptorDatabase(half.channel)
    theirs = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(theirs)

    def fields(message):
        return {
            (f.name, f.number, f.type, f.label, f.type_name)
            for f in message.field
            if f.name not in STREAMED
        }

    for message in theirs.message_type:
        if "Streamed" in message.name or message.name == "SessionRunLog":
            continue
        file = database.FindFileContainingSymbol(f"tensorflow.serving.{message.name}")
        (ours,) = [m for m in file.message_type if m.name == message.name]
        extra = {
            f
            for f in fields(ours) - fields(message)
            if f[0] not in PARTS.get(ours.name, ())
        }
        assert fields(message) - fields(ours) == set() and extra == set(), message.name
