"""Calls the processor by its C ABI, and writes models and checkpoints with stock TensorFlow."""

import ctypes
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["RUST_LOG"] = "info,serving_processor=debug"

import eas
import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[3]
MODELS = ROOT / "models/build"
LIBRARY = pathlib.Path(
    os.environ.get("PROCESSOR", ROOT / "target/release/libserving_processor.so")
)
POLL_MS = 50
OK, FAILED = 200, 500
KEYS, VALUES = "-sparse_incr_keys", "-sparse_incr_values"
ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"

library = ctypes.CDLL(str(LIBRARY))
library.initialize.restype = ctypes.c_void_p
library.process.argtypes = [
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
]
library.get_serving_model_info.argtypes = [ctypes.c_void_p] * 3
library.session_group_processor_destroy.argtypes = [ctypes.c_void_p]
_free = ctypes.CDLL(None).free
_free.argtypes = [ctypes.c_void_p]


def _answer(call):
    data, size = ctypes.c_void_p(), ctypes.c_int(-1)
    state = call(ctypes.byref(data), ctypes.byref(size))
    output = ctypes.string_at(data, size.value) if data.value else None
    _free(data)
    return state, output


class Processor:
    """A model of the processor's."""

    def __init__(self, config, entry=b""):
        state = ctypes.c_int(7)
        text = config if isinstance(config, bytes) else json.dumps(config).encode()
        self.handle = library.initialize(entry, text, ctypes.byref(state))
        self.state = state.value

    def process(self, data, size=None):
        """The state, and the bytes of the answer."""
        size = len(data) if size is None else size
        return _answer(
            lambda out, out_size: library.process(
                self.handle, data, size, out, out_size
            )
        )

    def predict(self, inputs, **kwargs):
        """The outputs' ArrayProtos by alias."""
        state, output = self.process(eas.request(inputs, **kwargs))
        assert state == OK, output
        return eas.PredictResponse.FromString(output).outputs

    def refused(self, data, size=None):
        """The message of a request that fails."""
        state, output = self.process(data, size)
        assert state == FAILED, output
        return output.decode()

    def info(self):
        state, output = _answer(
            lambda out, size: library.get_serving_model_info(self.handle, out, size)
        )
        assert state == OK, output
        return eas.ServingModelInfo.FromString(output)

    def wait(self, condition, seconds=30):
        """Waits until the info is as wanted."""
        end = time.monotonic() + seconds
        while not condition(info := self.info()):
            assert time.monotonic() < end, info
            time.sleep(POLL_MS / 2000)
        return info


@pytest.fixture
def start(capfd):
    """Makes processors, which end with the test."""
    made = []

    def initialize(config, entry=b"", fails=None):
        processor = Processor(config, entry)
        if fails is None:
            assert processor.state == 0, capfd.readouterr().err
            made.append(processor)
            return processor
        assert (processor.state, processor.handle) == (-1, None)
        message = capfd.readouterr().err
        assert fails in message
        return message

    yield initialize
    for processor in made:
        library.session_group_processor_destroy(processor.handle)


class Versioned(tf.Module):
    """All of its variables have the same value, which is the version."""

    ROWS, HOT = 100_000, 100

    def __init__(self):
        super().__init__()
        self.table = tf.Variable(tf.zeros([self.ROWS, 8]))
        self.weights = tf.Variable(tf.zeros([64, 64]))
        self.bias = tf.Variable(0.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, "ids"),
            tf.TensorSpec([None], tf.string, "names"),
        ]
    )
    def serve(self, ids, names):
        rows = tf.gather(self.table, ids)
        ones = tf.ones([1, 64])
        product = tf.linalg.matmul(ones, self.weights) / 64.0
        everything = tf.concat(
            [
                tf.reshape(rows, [-1]),
                tf.reshape(product, [-1]),
                tf.reshape(self.weights, [-1])[:16],
                [self.bias],
            ],
            0,
        )
        return {
            "least": tf.reduce_min(everything),
            "most": tf.reduce_max(everything),
            "sizes": tf.strings.length(names),
        }


class Trainer:
    """Writes versions of the model, as a training program does."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.module = Versioned()
        self.saved_model = self.folder / "saved_model"
        self.checkpoints = self.folder / "checkpoints"
        tf.saved_model.save(
            self.module, str(self.saved_model), signatures=self.module.serve
        )

    def config(self, **more):
        return {
            "savedmodel_dir": str(self.saved_model),
            "checkpoint_dir": str(self.checkpoints),
            "checkpoint_poll_interval_ms": POLL_MS,
            "session_num": 2,
        } | more

    def full(self, version, name="run"):
        """A full checkpoint, which becomes the current one."""
        for variable in self.module.variables:
            variable.assign(tf.fill(variable.shape, float(version)))
        folder = self.checkpoints / name
        folder.mkdir(parents=True, exist_ok=True)
        prefix = tf.train.Checkpoint(root=self.module).write(
            str(folder / f"model.ckpt-{version}")
        )
        self.current(version, name)
        return prefix

    def current(self, version, name="run"):
        """Makes a checkpoint that is there the current one."""
        folder = self.checkpoints / name
        tf.compat.v1.train.update_checkpoint_state(
            str(folder), str(folder / f"model.ckpt-{version}")
        )

    def delta(self, version, name="run", change=None):
        """Some rows of the table, and all of the other variables."""
        tensors = {
            f"weights{ATTRIBUTE}": np.full([64, 64], version, np.float32),
            f"bias{ATTRIBUTE}": np.float32(version),
            f"table{ATTRIBUTE}{KEYS}": np.arange(Versioned.HOT, dtype=np.int64),
            f"table{ATTRIBUTE}{VALUES}": np.full(
                [Versioned.HOT, 8], version, np.float32
            ),
            # What a trainer saves beside the model.
            "optimizer/iter" + ATTRIBUTE: np.int64(version),
        }
        if change:
            change(tensors)
        folder = self.checkpoints / name / ".incremental_checkpoint"
        folder.mkdir(parents=True, exist_ok=True)
        prefix = folder / f"incr.ckpt-{version}"
        names = list(tensors)
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tensors[name] for name in names],
        )
        return str(prefix)


REQUEST = {
    "ids": eas.array("INT64", list(range(0, Versioned.HOT, 7))),
    "names": eas.array("STRING", [b"a", b"bc"]),
}


@pytest.fixture
def trainer(tmp_path):
    return Trainer(tmp_path)
