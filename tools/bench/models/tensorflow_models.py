"""Exports the models of the benchmark with stock TensorFlow.

    python tools/bench/models/tensorflow_models.py OUT

Writes each model to OUT/NAME, in place of what is there:

- saved_model/ or graph.pb: the model for TensorFlow, with variables or with constants;
- weights.bin: its weights in ONNX's layout, to which the ONNX model refers;
- model.json: its inputs, its output, and where in weights.bin each weight is.

Weights are random but the same on every run.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1
from tensorflow.core.protobuf import saved_model_pb2

import shapes
import tensorflow1_models

# ONNX Runtime and OpenVINO map weights from the file where they start at a page.
PAGE = 4096

# So many rows of a table differ, which lets a kit of models pack them (a prime, so that a row doesn't
# come back at the same place of a page). How fast a lookup is does not depend on values.
ROWS = 4099


class Weights:
    """The weights of a model by name, in the order in which they were asked for."""

    def __init__(self):
        self.rng = np.random.default_rng(1)
        self.arrays = {}
        # What makes an array one that ONNX takes, where its layout is not TensorFlow's.
        self.to_onnx = {}
        # Where ONNX has several in place of one: what makes each of them.
        self.parts = {}

    def normal(self, name, *shape, scale):
        """Random numbers; a long table repeats its first rows."""
        rows = min(shape[0], ROWS)
        block = self.rng.standard_normal((rows, *shape[1:]), dtype=np.float32) * scale
        self.arrays[name] = np.resize(block, shape)

    def layers(self, name, sizes):
        """Kernels and biases of dense layers, which keep the scale of what passes through."""
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            self.normal(f"{name}.{i}.kernel", a, b, scale=math.sqrt(2 / a))
            self.normal(f"{name}.{i}.bias", b, scale=0.1)

    def for_onnx(self):
        for name, array in self.arrays.items():
            whole = {name: self.to_onnx.get(name, np.asarray)}
            for part, make in self.parts.get(name, whole).items():
                yield part, make(array)

    def write(self, path):
        """Writes the arrays one after the other; gives their places."""
        places = []
        with open(path, "wb") as file:
            for name, array in self.for_onnx():
                file.write(b"\0" * (-file.tell() % PAGE))
                places.append(
                    {"name": name, "dims": list(array.shape), "offset": file.tell()}
                )
                array = np.ascontiguousarray(array, dtype="<f4")
                file.write(array.tobytes())
        return places


def layers(x, w, name, sizes, relu_last=False):
    """Dense layers, with ReLU between them."""
    n = len(sizes) - 1
    for i in range(n):
        x = tf.matmul(x, w[f"{name}.{i}.kernel"]) + w[f"{name}.{i}.bias"]
        if i + 1 < n or relu_last:
            x = tf.nn.relu(x)
    return x


class WideDeep:
    """Wide & Deep: 26 embeddings, 13 numbers; one score a row."""

    shape = shapes.WIDE_DEEP

    def weights(self, w):
        s = self.shape
        for i in range(s.fields):
            w.normal(f"embedding.{i}", s.rows, s.width, scale=0.1)
            w.normal(f"wide.{i}", s.rows, 1, scale=0.1)
        w.layers("deep", s.deep)

    def inputs(self):
        s = self.shape
        return {"ids": ids(s.rows, s.fields), "dense": floats(s.dense)}

    def score(self, w, ids, dense):
        s = self.shape
        columns = tf.unstack(ids, s.fields, axis=1)
        deep = [tf.gather(w[f"embedding.{i}"], c) for i, c in enumerate(columns)]
        wide = tf.add_n([tf.gather(w[f"wide.{i}"], c) for i, c in enumerate(columns)])
        x = layers(tf.concat(deep + [dense], axis=1), w, "deep", s.deep)
        return tf.sigmoid(tf.squeeze(x + wide, axis=1))


class Dlrm:
    """DLRM: 26 embeddings and 13 numbers through a small network, all pairs of them multiplied."""

    shape = shapes.DLRM

    def weights(self, w):
        s = self.shape
        for i in range(s.fields):
            w.normal(f"embedding.{i}", s.rows, s.width, scale=0.3)
        w.layers("bottom", s.bottom)
        w.layers("top", s.top)

    def inputs(self):
        s = self.shape
        return {"ids": ids(s.rows, s.fields), "dense": floats(s.dense)}

    def score(self, w, ids, dense):
        s = self.shape
        columns = tf.unstack(ids, s.fields, axis=1)
        bottom = layers(dense, w, "bottom", s.bottom, relu_last=True)
        vectors = [tf.gather(w[f"embedding.{i}"], c) for i, c in enumerate(columns)]
        vectors = tf.stack([bottom] + vectors, axis=1)
        products = tf.matmul(vectors, vectors, transpose_b=True)
        products = tf.reshape(products, [-1, s.vectors * s.vectors])
        pairs = tf.gather(products, s.pairs(), axis=1)
        x = layers(tf.concat([bottom, pairs], axis=1), w, "top", s.top)
        return tf.sigmoid(tf.squeeze(x, axis=1))


class Ranker:
    """Two transformer layers over the last 20 items; their mean scores a candidate."""

    shape = shapes.RANKER

    def weights(self, w):
        s = self.shape
        w.normal("items", s.rows, s.width, scale=0.5)
        w.normal("positions", s.length, s.width, scale=0.5)
        self.layer_weights(w)

    def layer_weights(self, w):
        s = self.shape
        for i in range(s.layers):
            for name in ["query", "key", "value", "output"]:
                w.layers(f"{i}.{name}", [s.width, s.width])
            w.layers(f"{i}.feed", s.feed)
            for name in ["norm1", "norm2"]:
                w.arrays[f"{i}.{name}.scale"] = np.ones(s.width, np.float32)
                w.normal(f"{i}.{name}.bias", s.width, scale=0.1)

    def inputs(self):
        s = self.shape
        return {"history": ids(s.rows, s.length), "candidate": ids(s.rows)}

    def score(self, w, history, candidate):
        x = self.layers(tf.gather(w["items"], history) + w["positions"], w)
        return self.likely(tf.reduce_mean(x, axis=1), tf.gather(w["items"], candidate))

    def layers(self, x, w, mask=None):
        s = self.shape
        for i in range(s.layers):
            x = self.norm(x + self.attention(x, w, i, mask), w, f"{i}.norm1")
            x = self.norm(x + flat_layers(x, w, f"{i}.feed", s.feed), w, f"{i}.norm2")
        return x

    def likely(self, state, item):
        product = tf.reduce_sum(state * item, axis=1)
        return tf.sigmoid(product / math.sqrt(self.shape.width))

    def attention(self, x, w, i, mask):
        s = self.shape

        def heads(name):
            y = flat_layers(x, w, f"{i}.{name}", [s.width, s.width])
            y = tf.reshape(y, [-1, s.length, s.heads, s.head])
            return tf.transpose(y, [0, 2, 1, 3])

        scores = tf.matmul(heads("query"), heads("key"), transpose_b=True)
        scores *= 1 / math.sqrt(s.head)
        if mask is not None:
            scores += mask
        weighted = tf.matmul(tf.nn.softmax(scores), heads("value"))
        y = tf.reshape(tf.transpose(weighted, [0, 2, 1, 3]), [-1, s.length, s.width])
        return flat_layers(y, w, f"{i}.output", [s.width, s.width])

    def norm(self, x, w, name):
        mean, variance = tf.nn.moments(x, axes=[2], keepdims=True)
        x = (x - mean) * tf.math.rsqrt(variance + self.shape.epsilon)
        return x * w[f"{name}.scale"] + w[f"{name}.bias"]


class Decoder(Ranker):
    """Two transformer layers with a causal mask over 16 tokens; the last one scores a next token.

    Mask and positions are as large as the longest text, and sliced to what is asked for. The positions
    are computed in the graph, of nothing but constants.
    """

    shape = shapes.DECODER

    def weights(self, w):
        s = self.shape
        w.normal("tokens", s.rows, s.width, scale=0.5)
        self.layer_weights(w)
        rates = 10_000.0 ** -np.linspace(0, 1, s.width // 2)
        angles = np.arange(s.positions)[:, None] * rates
        w.arrays["angles"] = angles.astype(np.float32)
        mask = np.triu(np.full((s.positions, s.positions), -1e9, np.float32), 1)
        w.arrays["mask"] = mask

    def inputs(self):
        s = self.shape
        return {"text": ids(s.rows, s.length), "next": ids(s.rows)}

    def score(self, w, text, next):
        n = self.shape.length
        positions = tf.concat([tf.sin(w["angles"]), tf.cos(w["angles"])], axis=1)
        x = tf.gather(w["tokens"], text) + positions[:n]
        x = self.layers(x, w, w["mask"][:n, :n])
        return self.likely(x[:, -1], tf.gather(w["tokens"], next))


class Tagger:
    """A recurrent network in a loop of TensorFlow 1: tags for each of 20 words.

    Word 0 is padding: its row of zeros is put before the table in the graph.
    """

    shape = shapes.TAGGER
    output = [shape.length, shape.tags]

    def weights(self, w):
        s = self.shape
        w.normal("words", s.rows, s.width, scale=0.5)
        for name, n in [("input", s.width), ("hidden", s.hidden)]:
            w.normal(f"cell.{name}", n, s.hidden, scale=math.sqrt(1 / n))
            w.to_onnx[f"cell.{name}"] = lambda kernel: kernel.T[None]
        w.normal("cell.bias", s.hidden, scale=0.1)
        # ONNX has one more, for the hidden state.
        w.to_onnx["cell.bias"] = lambda bias: np.append(bias, 0 * bias)[None]
        w.layers("tag", [s.hidden, s.tags])

    def inputs(self):
        s = self.shape
        return {"text": ids(s.rows + 1, s.length)}

    def score(self, w, text):
        s = self.shape
        table = tf.concat([tf.zeros([1, s.width]), w["words"]], axis=0)
        steps = tf.transpose(tf.gather(table, text), [1, 0, 2])

        def step(i, hidden, states):
            x = tf.matmul(given.read(i), w["cell.input"])
            hidden = tf.tanh(x + tf.matmul(hidden, w["cell.hidden"]) + w["cell.bias"])
            return i + 1, hidden, states.write(i, hidden)

        tf1.disable_control_flow_v2()
        given = tf.TensorArray(tf.float32, s.length).unstack(steps)
        states = tf.TensorArray(tf.float32, s.length)
        hidden = tf.zeros([tf.shape(text)[0], s.hidden])
        _, _, states = tf1.while_loop(
            lambda i, *_: i < s.length, step, [0, hidden, states]
        )
        states = states.stack()
        tf1.enable_control_flow_v2()
        states = tf.transpose(states, [1, 0, 2])
        return tf.nn.softmax(flat_layers(states, w, "tag", [s.hidden, s.tags]))


class Convnet:
    """Six convolutions with batch normalisation and ReLU over an image of 96 x 96."""

    shape = shapes.CONVNET
    output = [shape.classes]

    def weights(self, w):
        s = self.shape
        inputs = s.channels
        for i, (kernel, n, _) in enumerate(s.layers):
            dims = [kernel, kernel, inputs, n]
            w.normal(f"{i}.kernel", *dims, scale=math.sqrt(2 / math.prod(dims[:3])))
            w.to_onnx[f"{i}.kernel"] = lambda kernel: kernel.transpose(3, 2, 0, 1)
            for name in ["scale", "variance"]:
                array = w.rng.uniform(0.5, 1.5, n)
                w.arrays[f"{i}.{name}"] = array.astype(np.float32)
            for name in ["bias", "mean"]:
                w.normal(f"{i}.{name}", n, scale=0.1)
            inputs = n
        w.layers("classes", [inputs, s.classes])

    def inputs(self):
        s = self.shape
        return {"image": floats(s.size, s.size, s.channels)}

    def score(self, w, image):
        s = self.shape
        x = image
        for i, (_, _, stride) in enumerate(s.layers):
            x = tf.nn.conv2d(x, w[f"{i}.kernel"], stride, "SAME")
            parameters = [w[f"{i}.{n}"] for n in ["scale", "bias", "mean", "variance"]]
            x, _, _ = tf1.nn.fused_batch_norm(
                x, *parameters, epsilon=s.epsilon, is_training=False
            )
            x = tf.nn.relu(x)
        x = tf.reduce_mean(x, axis=[1, 2])
        sizes = [s.layers[-1][1], s.classes]
        return tf.nn.softmax(layers(x, w, "classes", sizes))


class MlpFrozen:
    """Dense layers whose weights are constants of the graph."""

    shape = shapes.MLP
    output = shape.sizes[-1:]

    def weights(self, w):
        w.layers("layer", self.shape.sizes)

    def inputs(self):
        return {"x": floats(self.shape.sizes[0])}

    def score(self, w, x):
        return tf.nn.softmax(layers(x, w, "layer", self.shape.sizes))


class MlpFrozenHuge:
    """Constants of 363 MB: a graph whose copies would be felt."""

    rows, sizes = 625_000, [64, 4096, 4096, 4096, 4096, 8]
    output = sizes[-1:]

    def weights(self, w):
        w.normal("embedding", self.rows, self.sizes[0], scale=1)
        w.layers("layer", self.sizes)

    def inputs(self):
        return {"id": ids(self.rows)}

    def score(self, w, id):
        x = tf.gather(w["embedding"], id)
        return tf.nn.softmax(layers(x, w, "layer", self.sizes))


class Trivial:
    """Adds one: all the time goes to what surrounds a graph."""

    def weights(self, w):
        pass

    def inputs(self):
        return {"x": floats()}

    def score(self, w, x):
        return x + 1.0


def flat_layers(x, w, name, sizes):
    """Dense layers over the last of three dimensions, as one large product."""
    shape = tf.shape(x)
    y = layers(tf.reshape(x, [-1, sizes[0]]), w, name, sizes)
    return tf.reshape(y, [shape[0], shape[1], sizes[-1]])


def ids(rows, *dims):
    return {"dims": [-1, *dims], "values": {"ids": rows}}


def floats(*dims):
    return {"dims": [-1, *dims], "values": "floats"}


SAVED_MODELS = {
    "wide_deep": WideDeep,
    "dlrm": Dlrm,
    "ranker": Ranker,
    "convnet": Convnet,
}
GRAPH_DEFS = {
    "decoder": Decoder,
    "tagger": Tagger,
    "mlp_frozen": MlpFrozen,
    "mlp_frozen_huge": MlpFrozenHuge,
    "trivial": Trivial,
}


def tensor_spec(name, given):
    values = given["values"]
    if values == "floats":
        dtype = tf.float32
    else:
        dtype = tf.int64 if "ids" in values else tf.string
    dims = [None if dim < 0 else dim for dim in given["dims"]]
    return tf.TensorSpec(dims, dtype, name=name)


def save_model(model, weights, path):
    """Writes a SavedModel; gives the names of its tensors."""
    module = tf.Module()
    module.weights = {
        name: tf.Variable(array) for name, array in weights.arrays.items()
    }

    @tf.function
    def serve(**inputs):
        return {"score": model.score(module.weights, **inputs)}

    specs = {name: tensor_spec(name, given) for name, given in model.inputs().items()}
    module.serve = serve
    tf.saved_model.save(
        module, str(path), signatures=serve.get_concrete_function(**specs)
    )
    proto = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    signature = proto.meta_graphs[0].signature_def["serving_default"]
    names = {name: info.name for name, info in signature.inputs.items()}
    return names, signature.outputs["score"].name


def placeholder(name, given):
    spec = tensor_spec(name, given)
    return tf1.placeholder(spec.dtype, spec.shape, name=name)


def save_tensorflow1(model, weights, path):
    return tensorflow1_models.save(model, weights, path, placeholder)


def save_graph_def(model, weights, path):
    """Writes a GraphDef; gives the names of its tensors."""
    with tf.Graph().as_default() as graph:
        inputs = {}
        for name, given in model.inputs().items():
            inputs[name] = placeholder(name, given)
        constants = {name: tf.constant(array) for name, array in weights.arrays.items()}
        score = tf.identity(model.score(constants, **inputs), name="score")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return {name: tensor.name for name, tensor in inputs.items()}, score.name


def export(name, model, out):
    out.mkdir(parents=True)
    weights = Weights()
    model.weights(weights)
    if name in SAVED_MODELS:
        file, save = "saved_model", save_model
    elif name in tensorflow1_models.MODELS:
        file, save = "saved_model", save_tensorflow1
    else:
        file, save = "graph.pb", save_graph_def
    tensors, score = save(model, weights, out / file)
    dims = [-1, *getattr(model, "output", [])]
    description = {
        "file": file,
        "inputs": [
            {"name": name, "tensorflow": tensors[name], **given}
            for name, given in model.inputs().items()
        ],
        "output": {"name": "score", "tensorflow": score, "dims": dims},
        "weights": weights.write(out / "weights.bin"),
    }
    (out / "model.json").write_text(json.dumps(description, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    models = SAVED_MODELS | GRAPH_DEFS | tensorflow1_models.MODELS
    for name, model in models.items():
        start = time.monotonic()
        shutil.rmtree(out / name, ignore_errors=True)
        export(name, model(), out / name)
        print(f"made {out / name} in {time.monotonic() - start:.1f} s", flush=True)


main()
