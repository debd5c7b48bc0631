"""Writes the models of the benchmark once more, as ONNX.

    python tools/bench/models/onnx_models.py OUT

Adds OUT/NAME/model.onnx to what tensorflow_models.py has left there. The weights are the same: the
ONNX file refers to weights.bin.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import shapes

OPSET = 21


class Graph:
    """An ONNX graph in the making: each method adds a node and gives the name of its output."""

    def __init__(self):
        self.nodes = []
        self.constants = []

    def __getattr__(self, op):
        def node(*inputs, outputs=1, **attributes):
            names = [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(op, inputs, names, **attributes))
            return names if outputs > 1 else names[0]

        return node

    def constant(self, value, dtype=np.int64):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def reshape(self, x, *dims):
        return self.Reshape(x, self.constant(dims))

    def dense(self, x, name, sizes, relu_last=False):
        n = len(sizes) - 1
        for i in range(n):
            x = self.Gemm(x, f"{name}.{i}.kernel", f"{name}.{i}.bias")
            if i + 1 < n or relu_last:
                x = self.Relu(x)
        return x

    def columns(self, ids, fields):
        """Each column of ids, as int64 [batch, 1]."""
        return self.Split(ids, outputs=fields, axis=1, num_outputs=fields)


def wide_deep(g):
    s = shapes.WIDE_DEEP
    columns = g.columns("ids", s.fields)
    deep = [g.Gather(f"embedding.{i}", c) for i, c in enumerate(columns)]
    wide = g.Sum(*[g.Gather(f"wide.{i}", c) for i, c in enumerate(columns)])
    deep = g.reshape(g.Concat(*deep, axis=2), -1, s.fields * s.width)
    x = g.dense(g.Concat(deep, "dense", axis=1), "deep", s.deep)
    return g.Sigmoid(g.reshape(g.Add(x, g.reshape(wide, -1, 1)), -1))


def dlrm(g):
    s = shapes.DLRM
    bottom = g.dense("dense", "bottom", s.bottom, relu_last=True)
    vectors = [g.reshape(bottom, -1, 1, s.width)]
    vectors += [
        g.Gather(f"embedding.{i}", column)
        for i, column in enumerate(g.columns("ids", s.fields))
    ]
    vectors = g.Concat(*vectors, axis=1)
    products = g.MatMul(vectors, g.Transpose(vectors, perm=[0, 2, 1]))
    products = g.reshape(products, -1, s.vectors * s.vectors)
    pairs = g.Gather(products, g.constant(s.pairs()), axis=1)
    x = g.dense(g.Concat(bottom, pairs, axis=1), "top", s.top)
    return g.Sigmoid(g.reshape(x, -1))


def transformer(g, s, x, mask=None):
    """The layers of ranker and decoder."""

    def dense(x, name):
        return g.Add(g.MatMul(x, f"{name}.kernel"), f"{name}.bias")

    def norm(x, name):
        return g.LayerNormalization(
            x, f"{name}.scale", f"{name}.bias", axis=-1, epsilon=s.epsilon
        )

    def heads(x, name, order):
        y = g.reshape(dense(x, name), -1, s.length, s.heads, s.head)
        return g.Transpose(y, perm=order)

    def attention(x, i):
        query = heads(x, f"{i}.query.0", [0, 2, 1, 3])
        key = heads(x, f"{i}.key.0", [0, 2, 3, 1])
        value = heads(x, f"{i}.value.0", [0, 2, 1, 3])
        scale = g.constant(1 / math.sqrt(s.head), np.float32)
        scores = g.Mul(g.MatMul(query, key), scale)
        if mask:
            scores = g.Add(scores, mask)
        scores = g.Softmax(scores, axis=-1)
        y = g.Transpose(g.MatMul(scores, value), perm=[0, 2, 1, 3])
        return dense(g.reshape(y, -1, s.length, s.width), f"{i}.output.0")

    for i in range(s.layers):
        x = norm(g.Add(x, attention(x, i)), f"{i}.norm1")
        y = dense(g.Relu(dense(x, f"{i}.feed.0")), f"{i}.feed.1")
        x = norm(g.Add(x, y), f"{i}.norm2")
    return x


def likely(g, s, state, item):
    product = g.ReduceSum(g.Mul(state, item), g.constant([1]), keepdims=0)
    return g.Sigmoid(g.Div(product, g.constant(math.sqrt(s.width), np.float32)))


def ranker(g):
    s = shapes.RANKER
    x = transformer(g, s, g.Add(g.Gather("items", "history"), "positions"))
    user = g.ReduceMean(x, g.constant([1]), keepdims=0)
    return likely(g, s, user, g.Gather("items", "candidate"))


def decoder(g):
    s = shapes.DECODER
    zero, n = g.constant([0]), g.constant([s.length])
    positions = g.Concat(g.Sin("angles"), g.Cos("angles"), axis=1)
    x = g.Add(g.Gather("tokens", "text"), g.Slice(positions, zero, n, zero))
    mask = g.Slice(
        "mask", g.constant([0, 0]), g.constant([s.length] * 2), g.constant([0, 1])
    )
    x = transformer(g, s, x, mask)
    last = g.Gather(x, g.constant(s.length - 1), axis=1)
    return likely(g, s, last, g.Gather("tokens", "next"))


def tagger(g):
    s = shapes.TAGGER
    padding = g.constant(np.zeros((1, s.width)), np.float32)
    table = g.Concat(padding, "words", axis=0)
    steps = g.Transpose(g.Gather(table, "text"), perm=[1, 0, 2])
    states, _ = g.RNN(
        steps,
        "cell.input",
        "cell.hidden",
        "cell.bias",
        outputs=2,
        hidden_size=s.hidden,
    )
    states = g.Transpose(g.Squeeze(states, g.constant([1])), perm=[1, 0, 2])
    tags = g.Add(g.MatMul(states, "tag.0.kernel"), "tag.0.bias")
    return g.Softmax(tags, axis=-1)


def bilstm_tagger(g):
    s = shapes.BILSTM
    steps = g.Transpose(g.Gather("words", "text"), perm=[1, 0, 2])

    def both(part):
        names = [f"{way}.{part}" for way in ["forward", "backward"]]
        rows = [g.Unsqueeze(name, g.constant([0])) for name in names]
        return g.Concat(*rows, axis=0)

    states, *_ = g.LSTM(
        steps,
        both("input"),
        both("hidden"),
        both("bias"),
        outputs=3,
        hidden_size=s.hidden,
        direction="bidirectional",
    )
    # [length, 2, batch, hidden]
    states = g.Transpose(states, perm=[2, 0, 1, 3])
    states = g.reshape(states, 0, s.length, 2 * s.hidden)
    return g.Softmax(g.Add(g.MatMul(states, "tag.kernel"), "tag.bias"), axis=-1)


def gru(g):
    s = shapes.GRU
    steps = g.Transpose(g.Gather("events", "ids"), perm=[1, 0, 2])

    def both(part):
        whole = g.Concat(f"gates.{part}", f"new.{part}", axis=0)
        return g.Unsqueeze(whole, g.constant([0]))

    # And one more bias, for the hidden state.
    bias = g.Concat(both("bias"), g.constant([[0] * 3 * s.hidden], np.float32), axis=1)
    cell = [both("input"), both("hidden"), bias]
    _, last = g.GRU(steps, *cell, outputs=2, hidden_size=s.hidden)
    x = g.Gemm(g.Squeeze(last, g.constant([0])), "score.kernel", "score.bias")
    return g.Sigmoid(g.reshape(x, -1))


def convnet(g):
    s = shapes.CONVNET
    x = g.Transpose("image", perm=[0, 3, 1, 2])
    for i, (_, _, stride) in enumerate(s.layers):
        x = g.Conv(x, f"{i}.kernel", strides=[stride] * 2, auto_pad="SAME_UPPER")
        parameters = [f"{i}.{name}" for name in ["scale", "bias", "mean", "variance"]]
        x = g.Relu(g.BatchNormalization(x, *parameters, epsilon=s.epsilon))
    x = g.reshape(g.GlobalAveragePool(x), -1, s.layers[-1][1])
    return g.Softmax(g.dense(x, "classes", [s.layers[-1][1], s.classes]), axis=-1)


def mlp_frozen(g):
    return g.Softmax(g.dense("x", "layer", shapes.MLP.sizes), axis=-1)


def trivial(g):
    return g.Add("x", g.constant(1, np.float32))


# wide_deep_columns has none: ONNX knows no tf.Examples.
MODELS = [
    wide_deep,
    dlrm,
    ranker,
    decoder,
    tagger,
    bilstm_tagger,
    gru,
    convnet,
    mlp_frozen,
    trivial,
]


def value_info(name, dims, dtype):
    dims = ["batch" if dim < 0 else dim for dim in dims]
    return helper.make_tensor_value_info(name, dtype, dims)


def weight(place):
    """A tensor whose values are in weights.bin."""
    tensor = TensorProto(
        name=place["name"],
        dims=place["dims"],
        data_type=TensorProto.FLOAT,
        data_location=TensorProto.EXTERNAL,
    )
    length = 4 * math.prod(place["dims"])
    for key, value in {
        "location": "weights.bin",
        "offset": place["offset"],
        "length": length,
    }.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def export(make, folder):
    description = json.loads((folder / "model.json").read_text())
    graph = Graph()
    output = description["output"]
    graph.nodes.append(helper.make_node("Identity", [make(graph)], [output["name"]]))
    inputs = [
        value_info(
            given["name"],
            given["dims"],
            TensorProto.FLOAT if given["values"] == "floats" else TensorProto.INT64,
        )
        for given in description["inputs"]
    ]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            make.__name__,
            inputs,
            [value_info(output["name"], output["dims"], TensorProto.FLOAT)],
            [weight(place) for place in description["weights"]] + graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    for make in MODELS:
        export(make, out / make.__name__)
        print(f"made {out / make.__name__ / 'model.onnx'}", flush=True)


main()
