"""Requests, right and wrong."""

import ctypes
import json
import random
import threading

import eas
import pytest
import tensorflow as tf
from conftest import FAILED, MODELS, OK, REQUEST, Processor, _free, library

HALF_PLUS = {"savedmodel_dir": str(MODELS / "half_plus")}
ELEMENTS = {
    "FLOAT": [1.5, -2.0],
    "DOUBLE": [0.1, 1e300],
    "HALF": [1.5, -2.0],
    "BFLOAT16": [1.5, -2.0],
    "INT64": [-(2**63), 2**63 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT16": [-32768, 32767],
    "INT8": [-128, 127],
    "UINT8": [0, 255],
    "UINT16": [0, 65535],
    "BOOL": [True, False],
    "STRING": [b"", b"a\0b"],
    "QINT8": [-128, 127],
    "QUINT8": [0, 255],
    "QINT16": [-32768, 32767],
    "QUINT16": [0, 65535],
    "QINT32": [-5, 5],
}
COMPLEX = {"COMPLEX64": [1.5, -2.0, 0.0, 1.0], "COMPLEX128": [1.5, -2.0, 0.0, 1.0]}


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A model that gives back what it is given, of each type."""
    specs = {
        name.lower(): tf.TensorSpec(
            None, tf.dtypes.as_dtype(eas.DTYPES[name]), name.lower()
        )
        for name in [*ELEMENTS, *COMPLEX]
    }
    module = tf.Module()

    def same(**inputs):
        return {
            f"{name}_out": tf.raw_ops.Identity(input=value)
            for name, value in inputs.items()
        }

    function = tf.function(same).get_concrete_function(**specs)
    folder = tmp_path_factory.mktemp("echo")
    tf.saved_model.save(module, str(folder), signatures={"echo": function})
    return {"savedmodel_dir": str(folder), "signature_name": "echo"}


def arrays(shape=(2,)):
    both = {name: eas.array(name, values, shape) for name, values in ELEMENTS.items()}
    both |= {name: eas.array(name, values, shape) for name, values in COMPLEX.items()}
    return {name.lower(): array for name, array in both.items()}


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 1, 1)])
def test_all_types_come_back(start, echo, shape):
    sent = arrays(shape)
    outputs = start(echo).predict(sent)
    assert {name[:-4] for name in outputs} == set(sent)
    for name, array in sent.items():
        assert outputs[f"{name}_out"] == array


def test_nothing_and_scalars_come_back(start, echo):
    processor = start(echo)
    for shape, count in [((0,), 0), ((3, 0), 0), ((), 1)]:
        sent = {
            name: eas.array(
                name.upper(),
                values[: count * (2 if name.upper() in COMPLEX else 1)],
                shape,
            )
            for name, values in {
                k.lower(): v for k, v in (ELEMENTS | COMPLEX).items()
            }.items()
        }
        outputs = processor.predict(sent)
        for name, array in sent.items():
            assert outputs[f"{name}_out"] == array


def test_signature_as_json(start, trainer):
    trainer.full(1)
    processor = start(trainer.config())
    state, output = processor.process(b"anything", 0)
    assert state == OK
    signature = json.loads(output)
    assert signature["signature_name"] == "serving_default"
    assert {"name": "ids", "shape": [-1], "type": "DT_INT64"} in signature["inputs"]
    assert {"name": "least", "shape": [], "type": "DT_FLOAT"} in signature["outputs"]
    assert processor.process(None, 0)[1] == output


def test_signatures_filters_and_names_of_tensors(start):
    processor = start(HALF_PLUS)
    x = eas.array("FLOAT", [1.0, 2.0])
    state, output = processor.process(None, 0)
    signature = json.loads(output)
    assert state == OK
    (alias,) = [port["name"] for port in signature["inputs"]]
    (out,) = [port["name"] for port in signature["outputs"]]
    for kwargs in ({}, {"signature": "serving_default"}, {"outputs": [out]}):
        outputs = processor.predict({alias: x}, **kwargs)
        assert list(outputs) == [out]
        assert list(outputs[out].float_val) == [2.5, 3.0]
    # By the names of tensors, as DeepRec's documentation has it.
    outputs = processor.predict({"x:0": x}, outputs=["y:0"])
    assert list(outputs["y:0"].float_val) == [2.5, 3.0]
    message = processor.refused(eas.request({"x:0": x, alias: x}))
    assert 'input "x" is there twice' in message
    message = processor.refused(eas.request({alias: x}, outputs=["z"]))
    assert f'has no output "z": it has {out}' in message
    message = processor.refused(eas.request({alias: x}, signature="z"))
    assert 'there is no signature "z": the model has' in message


def malformed():
    right = eas.request(REQUEST)
    ids = REQUEST["ids"]

    def one(says, **change):
        return pytest.param(eas.request(REQUEST | change), None, says, id=says)

    def raw(says, data, size=None):
        return pytest.param(data, size, says, id=says)

    short = eas.array("INT64", [1, 2])
    del short.int64_val[-1]
    wrong_field = eas.array("INT64", [1])
    del wrong_field.int64_val[:]
    wrong_field.float_val.append(1)
    return [
        raw("no PredictRequest", right[:-3]),
        raw("no PredictRequest", b"\xff" * 20),
        raw("no PredictRequest", b"{}"),
        raw("input_size is -1", right, -1),
        raw("input_size is -2147483648", right, -(2**31)),
        raw("input_data is NULL", None, 5),
        raw("needs also the inputs ids, names", eas.request({}, outputs=["least"])),
        raw("needs also the inputs names", eas.request({"ids": ids})),
        one('has no input "idz": it has ids, names', idz=ids),
        raw('no output "lest"', eas.request(REQUEST, outputs=["lest"])),
        raw('no signature "x"', eas.request(REQUEST, signature="x")),
        one(
            'input "ids" is DT_FLOAT, and has to be DT_INT64',
            ids=eas.array("FLOAT", [1.0]),
        ),
        one('input "ids" has shape [1, 1]', ids=eas.array("INT64", [[1]])),
        one("needs 2 elements in int64_val, where there are 1", ids=short),
        one("needs 1 elements in int64_val, where there are 0", ids=wrong_field),
        one("dimension of -1", ids=eas.array("INT64", [1], [-1])),
        one("too many elements", ids=eas.array("INT64", [1], [2**62, 2**62])),
        one("255 dimensions", ids=eas.array("INT64", [1], [1] * 255)),
        one("set dtype", ids=eas.array("INVALID", [1])),
        one("DT_VARIANT", ids=eas.array("VARIANT", [1])),
        one("in string_val, where there are 0", names=eas.array("STRING", [], [1])),
        # Of the model: no such row.
        one("indices", ids=eas.array("INT64", [10**9])),
    ]


@pytest.mark.parametrize("data, size, says", malformed())
def test_what_is_malformed_is_told(one_for_all, data, size, says):
    message = one_for_all.refused(data, size)
    assert message.startswith("Processor process failed: ")
    assert says in message
    assert len(message) < 1000
    one_for_all.predict(REQUEST)


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory):
    from conftest import Trainer

    trainer = Trainer(tmp_path_factory.mktemp("versioned"))
    trainer.full(1)
    processor = Processor(trainer.config())
    yield processor
    library.session_group_processor_destroy(processor.handle)


def test_any_bytes_are_answered(one_for_all):
    """Requests with some bytes changed: an answer or a message, and never the end of the process."""
    chance = random.Random(1)
    right = eas.request(REQUEST, outputs=["least"])
    for _ in range(20000):
        data = bytearray(right)
        for _ in range(chance.randrange(1, 5)):
            match chance.randrange(3):
                case 0 if data:
                    data[chance.randrange(len(data))] = chance.randrange(256)
                case 1:
                    data.insert(chance.randrange(len(data) + 1), chance.randrange(256))
                case _ if data:
                    del data[chance.randrange(len(data)) :]
        state, output = one_for_all.process(bytes(data))
        assert state in (OK, FAILED) and output is not None
    one_for_all.predict(REQUEST)


def test_filters_in_any_order(one_for_all):
    every = one_for_all.predict(REQUEST)
    for names in (
        ["sizes", "least"],
        ["least", "sizes"],
        ["most"],
        ["most", "least", "sizes"],
    ):
        outputs = one_for_all.predict(REQUEST, outputs=names)
        assert sorted(outputs) == sorted(names)
        assert all(outputs[name] == every[name] for name in names)
    message = one_for_all.refused(eas.request(REQUEST, outputs=["most"] * 2))
    assert 'output "most" is in the filter twice' in message


def test_long_names_are_not_quoted_whole(one_for_all):
    long = "x" * (1 << 20)
    for request in (
        eas.request(REQUEST, outputs=[long]),
        eas.request(REQUEST, signature=long),
        eas.request(REQUEST | {long: REQUEST["ids"]}),
    ):
        assert len(one_for_all.refused(request)) < 1000


def test_null_and_foreign_handles(one_for_all):
    right = eas.request(REQUEST)
    data, size = ctypes.c_void_p(), ctypes.c_int()
    out, out_size = ctypes.byref(data), ctypes.byref(size)
    process, info = library.process, library.get_serving_model_info
    for handle, says in [(None, b"NULL"), (12345, b"no model"), (2**60, b"no model")]:
        for call in (
            lambda h: process(h, right, len(right), out, out_size),
            lambda h: process(h, None, 0, out, out_size),
            lambda h: info(h, out, out_size),
        ):
            assert call(handle) == FAILED
            assert says in ctypes.string_at(data, size.value)
            _free(data)
        library.session_group_processor_destroy(handle)
    own = one_for_all.handle
    assert process(own, right, len(right), None, out_size) == FAILED
    assert process(own, right, len(right), out, None) == FAILED
    assert info(own, None, None) == FAILED


def batch(processor, requests, sizes=None, states=True):
    """By session_group_processor_batch_process_n, or, without states, by batch_process."""
    n = len(requests)
    sizes = (
        [len(request) if request else 0 for request in requests]
        if sizes is None
        else sizes
    )
    inputs = (ctypes.c_char_p * (n + 1))(*requests, None)
    outputs, output_sizes = (ctypes.c_void_p * n)(), (ctypes.c_int * n)()
    own_states = (ctypes.c_int * n)()
    handle = ctypes.c_void_p(processor.handle)
    if states:
        state = library.session_group_processor_batch_process_n(
            handle,
            n,
            inputs,
            (ctypes.c_int * n)(*sizes),
            outputs,
            output_sizes,
            own_states,
        )
    else:
        state = library.batch_process(
            handle, inputs, (ctypes.c_int * n)(*sizes), outputs, output_sizes
        )
    answers = [
        ctypes.string_at(data, size) for data, size in zip(outputs, output_sizes)
    ]
    for data in outputs:
        _free(data)
    return state, answers, list(own_states)


def test_batches(one_for_all):
    right = eas.request(REQUEST)
    few = eas.request(
        REQUEST | {"ids": eas.array("INT64", [1])}, outputs=["most", "least"]
    )
    alone = [one_for_all.process(request)[1] for request in (right, few)]
    for states in (True, False):
        state, answers, _ = batch(one_for_all, [right, few] * 20, states=states)
        assert (state, answers) == (OK, alone * 20)
        state, answers, each = batch(one_for_all, [right, b"\xff", few], states=states)
        assert state == FAILED
        assert [answers[0], answers[2]] == alone
        assert answers[1].startswith(b"Processor batch_process failed: ")
        if states:
            assert each == [OK, FAILED, OK]
    state, answers, each = batch(one_for_all, [right, None, right], [len(right), 3, -4])
    assert each == [OK, FAILED, FAILED]
    assert b"input_data is NULL" in answers[1] and b"input_size is -4" in answers[2]
    state, answers, _ = batch(one_for_all, [right, right], [0, len(right)])
    assert state == OK and json.loads(answers[0])["signature_name"]
    handle = ctypes.c_void_p(one_for_all.handle)
    assert (
        library.session_group_processor_batch_process_n(
            handle, 0, None, None, None, None, None
        )
        == OK
    )
    assert (
        library.session_group_processor_batch_process_n(
            ctypes.c_void_p(7), 0, None, None, None, None, None
        )
        == FAILED
    )
    assert (
        library.session_group_processor_batch_process_n(
            handle, -1, None, None, None, None, None
        )
        == FAILED
    )
    assert (
        library.session_group_processor_batch_process_n(
            handle, 1, None, None, None, None, None
        )
        == FAILED
    )
    assert library.batch_process(handle, None, None, None, None) == FAILED
    output, size = ctypes.c_void_p(), ctypes.c_int()
    slot = (ctypes.byref(output), ctypes.byref(size))
    assert library.batch_process(handle, None, None, *slot) == OK
    assert b"signature_name" in ctypes.string_at(output, size.value)
    _free(output)
    some = (ctypes.c_int * 1)(1)
    assert library.batch_process(handle, None, some, *slot) == FAILED
    assert b"input_data is NULL" in ctypes.string_at(output, size.value)
    _free(output)
    assert batch(Processor({}), [right, right])[2] == [FAILED, FAILED]


def test_destroy_waits_for_requests(trainer):
    trainer.full(1)
    processor = Processor(trainer.config())
    right, states, begin = eas.request(REQUEST), set(), threading.Barrier(5)

    def ask():
        begin.wait()
        while (answer := processor.process(right))[0] == OK:
            states.add(OK)
        assert b"destroy() has ended" in answer[1]
        states.add(FAILED)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin.wait()
    while OK not in states:
        pass
    library.session_group_processor_destroy(processor.handle)
    for thread in threads:
        thread.join()
    assert states == {OK, FAILED}
    library.session_group_processor_destroy(processor.handle)


def test_a_zero_byte_follows_the_answer(one_for_all):
    data, size = ctypes.c_void_p(), ctypes.c_int()
    right = eas.request(REQUEST)
    assert (
        library.process(
            one_for_all.handle,
            right,
            len(right),
            ctypes.byref(data),
            ctypes.byref(size),
        )
        == OK
    )
    assert ctypes.string_at(data.value + size.value, 1) == b"\0"
    _free(data)
