"""The processor's messages, as DeepRec's predict.proto numbers them; by hand, so that they are compared."""

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tensorflow.eas"

DTYPES = {
    name: number
    for number, name in enumerate(
        "INVALID FLOAT DOUBLE INT32 UINT8 INT16 INT8 STRING COMPLEX64 INT64 BOOL QINT8 QUINT8 QINT32 "
        "BFLOAT16 QINT16 QUINT16 UINT16 COMPLEX128 HALF RESOURCE VARIANT".split()
    )
}


def _message(file, name, fields):
    message = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        added = message.field.add(name=field, number=number)
        added.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
        if isinstance(kind, str):
            added.type, added.type_name = _F.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
        else:
            added.type = kind
    return message


def _map(message, name, number):
    entry = message.nested_type.add(name=name.title() + "Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=_F.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.ArrayProto",
        label=_F.LABEL_OPTIONAL,
    )
    message.field.add(
        name=name,
        number=number,
        type=_F.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{message.name}.{entry.name}",
        label=_F.LABEL_REPEATED,
    )


def _classes():
    file = descriptor_pb2.FileDescriptorProto(
        name="eas.proto", package=_PACKAGE, syntax="proto3"
    )
    _message(file, "ArrayShape", [("dim", 1, _F.TYPE_INT64, True)])
    _message(
        file,
        "ArrayProto",
        [
            ("dtype", 1, _F.TYPE_INT32, False),
            ("array_shape", 2, "ArrayShape", False),
            ("float_val", 3, _F.TYPE_FLOAT, True),
            ("double_val", 4, _F.TYPE_DOUBLE, True),
            ("int_val", 5, _F.TYPE_INT32, True),
            ("string_val", 6, _F.TYPE_BYTES, True),
            ("int64_val", 7, _F.TYPE_INT64, True),
            ("bool_val", 8, _F.TYPE_BOOL, True),
        ],
    )
    request = _message(
        file,
        "PredictRequest",
        [
            ("signature_name", 1, _F.TYPE_STRING, False),
            ("output_filter", 3, _F.TYPE_STRING, True),
        ],
    )
    _map(request, "inputs", 2)
    _map(_message(file, "PredictResponse", []), "outputs", 1)
    _message(
        file,
        "ServingModelInfo",
        [
            ("model_path", 1, _F.TYPE_STRING, False),
            ("full_checkpoint", 101, _F.TYPE_STRING, False),
            ("deltas", 102, _F.TYPE_STRING, True),
            ("update_error", 103, _F.TYPE_STRING, False),
            ("full_updates", 104, _F.TYPE_INT64, False),
            ("delta_updates", 105, _F.TYPE_INT64, False),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in (
            "ArrayProto",
            "PredictRequest",
            "PredictResponse",
            "ServingModelInfo",
        )
    }


globals().update(_classes())

_FIELDS = {
    "FLOAT": "float_val",
    "HALF": "float_val",
    "BFLOAT16": "float_val",
    "COMPLEX64": "float_val",
    "DOUBLE": "double_val",
    "COMPLEX128": "double_val",
    "STRING": "string_val",
    "INT64": "int64_val",
    "BOOL": "bool_val",
}


def field(dtype):
    """Where elements of a type are."""
    return _FIELDS.get(dtype, "int_val")


def array(dtype, values, shape=None):
    """An ArrayProto of a type such as "FLOAT"."""
    values = np.array(values, dtype=object) if dtype == "STRING" else np.array(values)
    proto = ArrayProto(dtype=DTYPES[dtype])  # noqa: F821
    proto.array_shape.dim.extend(values.shape if shape is None else shape)
    getattr(proto, field(dtype)).extend(values.reshape(-1).tolist())
    return proto


def request(inputs, signature="", outputs=()):
    """A serialised PredictRequest of ArrayProtos by alias."""
    message = PredictRequest(signature_name=signature, output_filter=outputs)  # noqa: F821
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(value)
    return message.SerializeToString()
