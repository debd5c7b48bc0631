"""Exports a model whose 3.5 GB of variables take a while to load.

    python tools/bench/models/large_variables.py OUT

Writes it to OUT/large_variables, in place of what is there, as tensorflow_models.py writes the others, but
without weights.bin: it is not for ONNX. Takes 6 GB of memory and 4 GB of disk.
"""

import argparse
import json
import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

WIDTH = 64
# One table that is nearly half of all, 26 others, and what is small.
ROWS = [6_250_000] + 26 * [285_000]
LAYERS = 100


class LargeVariables(tf.Module):
    """ids: int64 [batch, 27], of the smallest table's rows. score: float [batch]."""

    def __init__(self):
        super().__init__()

        def variable(i, *shape):
            # Made by all CPUs, and nowhere else in memory.
            return tf.Variable(
                tf.random.stateless_uniform(shape, [1, i], minval=-0.1, maxval=0.1)
            )

        self.tables = [variable(i, rows, WIDTH) for i, rows in enumerate(ROWS)]
        self.kernels = [variable(100 + i, WIDTH, WIDTH) for i in range(LAYERS)]

    @tf.function
    def serve(self, ids):
        columns = tf.unstack(ids, len(ROWS), axis=1)
        x = tf.add_n([tf.gather(*pair) for pair in zip(self.tables, columns)])
        for kernel in self.kernels:
            x = tf.tanh(tf.matmul(x, kernel))
        return {"score": tf.reduce_sum(x, axis=1)}


def export(out):
    model = LargeVariables()
    dims = [None, len(ROWS)]
    signature = model.serve.get_concrete_function(
        ids=tf.TensorSpec(dims, tf.int64, name="ids")
    )
    shutil.rmtree(out, ignore_errors=True)
    tf.saved_model.save(model, str(out / "saved_model"), signatures=signature)
    proto = saved_model_pb2.SavedModel.FromString(
        (out / "saved_model/saved_model.pb").read_bytes()
    )
    tensors = proto.meta_graphs[0].signature_def["serving_default"]
    description = {
        "file": "saved_model",
        "inputs": [
            {
                "name": "ids",
                "tensorflow": tensors.inputs["ids"].name,
                "dims": [-1, len(ROWS)],
                "values": {"ids": min(ROWS)},
            }
        ],
        "output": {
            "name": "score",
            "tensorflow": tensors.outputs["score"].name,
            "dims": [-1],
        },
        "weights": [],
    }
    (out / "model.json").write_text(json.dumps(description, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out / "large_variables"
    start = time.monotonic()
    export(out)
    print(f"made {out} in {time.monotonic() - start:.1f} s", flush=True)


main()
