"""Exports the models of the tests and the demo with stock TensorFlow.

    python models/make.py OUT [NAME ...]

Writes each model (default: all) to OUT/NAME, or OUT/NAME.pb for a plain GraphDef, in place of what
is there. Weights are random but the same on every run.
"""

import argparse
import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

tf1 = tf.compat.v1

FIELDS = 26  # categorical features of the Criteo data set, whose shape the model has
DENSE = 13  # its numeric ones
COUNTRIES = ["at", "br", "cn", "de", "fr", "in", "jp", "us"]


class WideDeep(tf.Module):
    """Wide & Deep: 26 embeddings, 13 numbers, a country as a string; one score a row.

    ids: int64 [batch, 26], any value (taken modulo the size of the table); dense: float
    [batch, 13]; country: string [batch]. score: float [batch], 0 to 1.
    """

    def __init__(self, rows: int, width: int = 16):
        super().__init__()
        rng = np.random.default_rng(1)

        def variable(*shape):
            values = rng.standard_normal(shape, dtype=np.float32) * 0.1
            return tf.Variable(values)

        self.rows = rows
        self.embeddings = [variable(rows, width) for _ in range(FIELDS)]
        self.wide = [variable(rows, 1) for _ in range(FIELDS)]
        self.country = variable(len(COUNTRIES) + 1, width)
        sizes = [(FIELDS + 1) * width + DENSE, 128, 64, 1]
        self.kernels = [variable(a, b) for a, b in zip(sizes, sizes[1:])]
        self.biases = [variable(b) for b in sizes[1:]]
        self.table = tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(COUNTRIES), tf.range(len(COUNTRIES), dtype=tf.int64)
            ),
            num_oov_buckets=1,
        )

    @tf.function
    def serve(self, ids, dense, country):
        rows = tf.math.floormod(ids, self.rows)
        columns = tf.unstack(rows, FIELDS, axis=1)
        deep = [
            tf.gather(table, column) for table, column in zip(self.embeddings, columns)
        ]
        deep.append(tf.gather(self.country, self.table.lookup(country)))
        wide = tf.add_n(
            [tf.gather(table, column) for table, column in zip(self.wide, columns)]
        )
        x = tf.concat(deep + [dense], axis=1)
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases)):
            x = tf.matmul(x, kernel) + bias
            if i + 1 < len(self.kernels):
                x = tf.nn.relu(x)
        return {"score": tf.sigmoid(tf.squeeze(x + wide, axis=1))}


def wide_deep(path, rows=800):
    model = WideDeep(rows)
    signature = model.serve.get_concrete_function(
        ids=tf.TensorSpec([None, FIELDS], tf.int64, name="ids"),
        dense=tf.TensorSpec([None, DENSE], tf.float32, name="dense"),
        country=tf.TensorSpec([None], tf.string, name="country"),
    )
    tf.saved_model.save(model, path, signatures=signature)


def wide_deep_large(path):
    wide_deep(path, rows=192_000)  # 26 x 192,000 x 17 floats: 339 MB


def mlp_frozen(path):
    """A plain GraphDef whose weights are constants. x: float [batch, 64]; y: float [batch, 8]."""
    rng = np.random.default_rng(2)
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [None, 64], name="x")
        for i, (a, b) in enumerate([(64, 256), (256, 256), (256, 8)]):
            kernel = tf.constant(rng.standard_normal((a, b), dtype=np.float32) * 0.1)
            x = tf.nn.relu(x @ kernel, name=f"layer{i}") if i < 2 else x @ kernel
        tf.nn.softmax(x, name="y")
    write_graph_def(graph, path)


class ControlFlow(tf.Module):
    """n: int32 []; x: float [batch]. y: x after n rounds, of different kinds for even and odd n."""

    def __init__(self):
        super().__init__()
        self.step = tf.Variable(0.5)

    @tf.function
    def serve(self, n, x):
        _, y = tf.while_loop(
            lambda i, _: i < n, lambda i, y: (i + 1, tf.sin(y) + self.step), [0, x]
        )
        return {"y": tf.cond(n % 2 == 0, lambda: y * 2.0, lambda: tf.reduce_sum(y) - y)}


def control_flow(path):
    model = ControlFlow()
    signature = model.serve.get_concrete_function(
        n=tf.TensorSpec([], tf.int32, name="n"),
        x=tf.TensorSpec([None], tf.float32, name="x"),
    )
    tf.saved_model.save(model, path, signatures=signature)


class Strings(tf.Module):
    """text: string [batch]. words: string [number of different words]; count: int32 like words."""

    @tf.function
    def serve(self, text):
        words = tf.strings.split(tf.strings.lower(text)).flat_values
        unique, _, count = tf.unique_with_counts(words)
        return {"words": tf.strings.join(["<", unique, ">"]), "count": count}


def strings(path):
    model = Strings()
    signature = model.serve.get_concrete_function(
        text=tf.TensorSpec([None], tf.string, name="text")
    )
    tf.saved_model.save(model, path, signatures=signature)


class Lookups(tf.Module):
    """Gathers of every kind, some of which are concatenated.

    ids: int64 [batch, 3]; words: int32 [batch, 2, 2]; x: float [batch, 2]. All indices 0 to 9.
    rows: float [batch, 16]; deep: float [batch, 2, 2, 5]; sum: float [batch, 4]; one: float [4];
    short: float [batch, 4]; pairs: float [batch, 2]; whole: float [10, 4].
    """

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.tables = [
            tf.Variable(rng.standard_normal((10, width), dtype=np.float32))
            for width in (4, 4, 5, 1)
        ]
        self.cube = tf.Variable(rng.standard_normal((10, 2, 3), dtype=np.float32))
        self.constant = rng.standard_normal((10, 3), dtype=np.float32)

    @tf.function
    def serve(self, ids, words, x):
        a, b, c, d = self.tables
        columns = tf.unstack(ids, 3, axis=1)
        shared = tf.gather(a, columns[0])
        return {
            # Gathers from variables and constants and other tensors, 4 + 5 + 2 + 3 + 1 + 1 columns.
            "rows": tf.concat(
                [
                    tf.gather(b, columns[1]),
                    tf.gather(c, columns[2]),
                    x,
                    tf.gather(tf.constant(self.constant), columns[0]),
                    tf.gather(d, columns[1]),
                    tf.gather(d, columns[2]),
                ],
                axis=1,
            ),
            "deep": tf.concat([tf.gather(b, words), tf.gather(d, words)], axis=-1),
            # One gather for two users, one of which could write in place.
            "sum": tf.concat([shared + 1.0, shared], axis=0)[: tf.shape(x)[0]]
            + tf.gather(b, columns[2]),
            "one": tf.gather(b, ids[0, 0]),
            "short": tf.raw_ops.GatherV2(
                params=a, indices=tf.cast(columns[1], tf.int16), axis=0
            ),
            # Concatenated along another axis than the last.
            "pairs": tf.reduce_sum(
                tf.concat(
                    [
                        tf.gather(self.cube, columns[0]),
                        tf.gather(self.cube, columns[1]),
                    ],
                    axis=1,
                ),
                axis=[2],
            )[:, :2],
            "whole": a * 1.0,
        }


def lookups(path):
    model = Lookups()
    signature = model.serve.get_concrete_function(
        ids=tf.TensorSpec([None, 3], tf.int64, name="ids"),
        words=tf.TensorSpec([None, 2, 2], tf.int32, name="words"),
        x=tf.TensorSpec([None, 2], tf.float32, name="x"),
    )
    tf.saved_model.save(model, path, signatures=signature)


def tf1_saved_model(path):
    """TF1: ref variables, a table without a shared name, loops of Enter and Switch nodes.

    word: string [batch]; n: int32 []. y: float [batch].
    """
    tf1.disable_control_flow_v2()
    with tf.Graph().as_default(), tf1.Session() as session:
        word = tf1.placeholder(tf.string, [None], name="word")
        n = tf1.placeholder(tf.int32, [], name="n")
        weights = tf1.get_variable(
            "weights", initializer=tf.constant([0.25, 1.5, -2.0]), use_resource=False
        )
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0, 1])), 2
        )
        rows = tf.gather(weights, table.lookup(word))
        _, y = tf1.while_loop(
            lambda i, _: i < n, lambda i, y: (i + 1, y * 1.5 + 1), [0, rows]
        )
        y = tf1.cond(n > 3, lambda: -y, lambda: y)
        y = tf.identity(y, name="y")
        session.run(tf1.global_variables_initializer())
        unshare(tf1.get_default_graph())
        signature = tf1.saved_model.build_signature_def(
            {
                "word": tf1.saved_model.build_tensor_info(word),
                "n": tf1.saved_model.build_tensor_info(n),
            },
            {"y": tf1.saved_model.build_tensor_info(y)},
            tf1.saved_model.PREDICT_METHOD_NAME,
        )
        builder = tf1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session,
            [tf1.saved_model.SERVING],
            {"serving_default": signature},
            main_op=tf1.tables_initializer(),
        )
        builder.save()
    tf1.enable_control_flow_v2()


def noisy(path):
    """x: float [batch]. y: x and a random number for each, from a kernel that counts how many it has drawn
    (serving_default, with a seed) or that nobody can foresee (unseeded)."""
    signature = [tf.TensorSpec([None], tf.float32, name="x")]

    @tf.function(input_signature=signature)
    def seeded(x):
        return {"y": x + tf.random.normal(tf.shape(x), seed=7, name="noise")}

    @tf.function(input_signature=signature)
    def unseeded(x):
        return {"y": x + tf.random.normal(tf.shape(x), name="noise")}

    module = tf.Module()
    module.seeded, module.unseeded = seeded, unseeded
    signatures = {"serving_default": seeded, "unseeded": unseeded}
    tf.saved_model.save(module, path, signatures=signatures)


def half_plus(path, bias=2.0):
    """TF1: y = x / 2 + bias, for each method of TensorFlow Serving.

    serving_default, predict: x, float [batch], to y. regress: examples with the feature x to y. classify:
    examples to the classes "low" and "high" with the scores -y and y. named: x and text, string [batch],
    to y and text_bytes.
    """
    build = tf1.saved_model.build_tensor_info
    method = tf1.saved_model.signature_constants
    with tf.Graph().as_default(), tf1.Session() as session:
        a = tf1.get_variable("a", initializer=0.5)
        b = tf1.get_variable("b", initializer=float(bias))
        x = tf1.placeholder(tf.float32, [None], name="x")
        text = tf1.placeholder(tf.string, [None], name="text")
        y = tf.identity(a * x + b, name="y")
        copy = tf.identity(text, name="copy")
        examples = tf1.placeholder(tf.string, [None], name="examples")
        features = tf.io.parse_example(
            examples, {"x": tf.io.FixedLenFeature([1], tf.float32)}
        )
        value = tf.identity(a * features["x"] + b, name="value")
        scores = tf.concat([-value, value], axis=1, name="scores")
        names = tf.constant([["low", "high"]])
        classes = tf.tile(names, [tf.shape(value)[0], 1], name="classes")
        session.run(tf1.global_variables_initializer())
        predict = tf1.saved_model.build_signature_def(
            {"x": build(x)}, {"y": build(y)}, method.PREDICT_METHOD_NAME
        )
        signatures = {
            "serving_default": predict,
            "predict": predict,
            "named": tf1.saved_model.build_signature_def(
                {"x": build(x), "text": build(text)},
                {"y": build(y), "text_bytes": build(copy)},
                method.PREDICT_METHOD_NAME,
            ),
            "regress": tf1.saved_model.build_signature_def(
                {"inputs": build(examples)},
                {"outputs": build(value)},
                method.REGRESS_METHOD_NAME,
            ),
            "classify": tf1.saved_model.build_signature_def(
                {"inputs": build(examples)},
                {"classes": build(classes), "scores": build(scores)},
                method.CLASSIFY_METHOD_NAME,
            ),
        }
        builder = tf1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session, [tf1.saved_model.SERVING], signatures
        )
        builder.save()


def half_plus_three(path):
    """The same with another bias, for a second version."""
    half_plus(path, bias=3.0)


def on_gpu(path):
    """TF1: an embedding on the CPU, layers on "/GPU:0".

    ids: int64 [batch, 4], 0 to 99; x: float [batch, 16]. y: float [batch, 8].
    """
    rng = np.random.default_rng(6)

    def variable(name, *shape):
        values = rng.standard_normal(shape, dtype=np.float32)
        return tf1.get_variable(name, initializer=values, use_resource=True)

    config = tf1.ConfigProto(allow_soft_placement=True)  # here, there is no GPU
    with tf.Graph().as_default(), tf1.Session(config=config) as session:
        ids = tf1.placeholder(tf.int64, [None, 4], name="ids")
        x = tf1.placeholder(tf.float32, [None, 16], name="x")
        with tf.device("/CPU:0"):
            rows = tf.gather(variable("table", 100, 16), ids)
            features = tf.concat([tf.reshape(rows, [-1, 64]), x], axis=1)
        with tf.device("/GPU:0"):
            hidden = tf.matmul(features, variable("hidden", 80, 32))
            hidden = tf.nn.relu(tf.nn.bias_add(hidden, variable("bias", 32)))
            y = tf.matmul(hidden, variable("last", 32, 8), name="y")
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, path, {"ids": ids, "x": x}, {"y": y})


def init_op(path):
    """A plain GraphDef with an operation `initialize` and state of every kind that can be shared.

    word: string [batch]. y: float [batch], from a resource variable, a ref variable and two
    tables, one of them without a shared name. `increase` adds delta (float []) to both variables.
    """
    with tf.Graph().as_default() as graph:
        word = tf1.placeholder(tf.string, [None], name="word")
        delta = tf1.placeholder(tf.float32, [], name="delta")
        resource = tf1.get_variable("resource", initializer=10.0, use_resource=True)
        ref = tf1.get_variable("ref", initializer=100.0, use_resource=False)
        tables = [
            tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant(values)),
                0.0,
            )
            for values in ([1.0, 2.0], [0.25, 0.5])
        ]
        y = sum(table.lookup(word) for table in tables) + resource + ref
        tf.identity(y, name="y")
        tf.group(resource.assign_add(delta), ref.assign_add(delta), name="increase")
        tf.group(
            tf1.global_variables_initializer(),
            tf1.tables_initializer(),
            name="initialize",
        )
        unshare(graph)
    write_graph_def(graph, path)


def writes(path):
    """A plain GraphDef with resource variables that are written after they have been read.

    ids: int32 [n], 0 to 7. v: float [4]; rows: float [n, 4] of e: float [8, 4]; missing: a read of a
    variable that has no value until `late`. `initialize` sets all elements of v and e to 0, `assign`
    those of v to x: float [], `add` adds x to v; `scatter` sets the rows `ids` of e to x.
    """
    with tf.Graph().as_default() as graph:
        ids = tf1.placeholder(tf.int32, [None], name="ids")
        x = tf1.placeholder(tf.float32, [], name="x")
        v = tf1.get_variable("v_", initializer=tf.zeros([4]), use_resource=True)
        e = tf1.get_variable("e_", initializer=tf.zeros([8, 4]), use_resource=True)
        late = tf1.get_variable("late_", initializer=7.0, use_resource=True)
        tf.identity(v.read_value(), name="v")
        tf.gather(e, ids, name="rows")
        tf.add(late.read_value(), 0.0, name="missing")
        tf.group(v.initializer, e.initializer, name="initialize")
        tf.group(late.initializer, name="late")
        tf.group(v.assign(tf.fill([4], x)), name="assign")
        tf.group(v.assign_add(tf.fill([4], x)), name="add")
        rows = tf.fill([tf.size(ids), 4], x)
        tf.group(
            tf.raw_ops.ResourceScatterUpdate(
                resource=e.handle, indices=ids, updates=rows
            ),
            name="scatter",
        )
    write_graph_def(graph, path)


def trivial(path):
    """A plain GraphDef that computes next to nothing. x: float [n]; y: x + 1."""
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [None], name="x")
        tf.add(x, 1.0, name="y")
    write_graph_def(graph, path)


def frozen_large(path):
    """A SavedModel without variables: a table of 320 MB and two kernels of 4 MB are constants.

    ids: int32 [batch], 0 to 1,249,999. y: float [batch, 64].
    """
    rng = np.random.default_rng(5)
    with tf.Graph().as_default(), tf1.Session() as session:
        ids = tf1.placeholder(tf.int32, [None], name="ids")
        table = rng.standard_normal((1_250_000, 64), dtype=np.float32)
        x = tf.gather(tf.constant(table), ids)
        for a, b in [(64, 16_384), (16_384, 64)]:
            x = tf.nn.relu(x @ tf.constant(rng.standard_normal((a, b), np.float32)))
        y = tf.identity(x, name="y")
        signature = tf1.saved_model.build_signature_def(
            {"ids": tf1.saved_model.build_tensor_info(ids)},
            {"y": tf1.saved_model.build_tensor_info(y)},
            tf1.saved_model.PREDICT_METHOD_NAME,
        )
        builder = tf1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session, [tf1.saved_model.SERVING], {"serving_default": signature}
        )
        builder.save()


def if_write(path):
    """A plain GraphDef whose branch writes, and whose look-ups come after it.

    x: float []; i: int32 [n], 0 to 3. `init` sets v: float [] to 0; fetching out: float [n, 2, 6] adds
    x to v where x > 0, first.
    """
    with tf.Graph().as_default() as graph:
        v = tf1.get_variable("v_", initializer=0.0, use_resource=True)
        tf.identity(v.read_value(), name="v")
        tf.group(v.initializer, name="init")
        x = tf1.placeholder(tf.float32, [], name="x")
        i = tf1.placeholder(tf.int32, [None], name="i")

        def add():
            with tf.control_dependencies([v.assign_add(x)]):
                return tf.constant(1.0)

        branch = tf.cond(x > 0, add, lambda: tf.constant(0.0))
        table = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
        with tf.control_dependencies([branch]):
            rows = tf.identity(i) + 1
        parts = [tf.gather(tf.constant(table * k), rows) for k in (1.0, 2.0)]
        tf.add(tf.concat(parts, axis=-1), 1.0, name="out")
    write_graph_def(graph, path)


def replaced(path):
    """A plain GraphDef with v of 8 MB: `init`, `assign` replaces it; rows: float [n, 256] of v by
    i: int32 [n]; t0 to t11 do nothing."""
    with tf.Graph().as_default() as graph:
        v = tf1.get_variable("v_", initializer=tf.zeros([8192, 256]), use_resource=True)
        tf.group(v.initializer, name="init")
        i = tf1.placeholder(tf.int32, [None], name="i")
        tf.gather(v, i, name="rows")
        tf.group(v.assign(tf.fill([8192, 256], 2.0)), name="assign")
        for k in range(12):
            tf.no_op(name=f"t{k}")
    write_graph_def(graph, path)


def second_cpu(path):
    """A plain GraphDef with v: float [] on the second CPU device, which `init` sets to 3."""
    with tf.Graph().as_default() as graph, tf.device("/cpu:1"):
        v = tf1.get_variable("v_", initializer=3.0, use_resource=True)
        tf.identity(v.read_value(), name="v")
        tf.group(v.initializer, name="init")
    write_graph_def(graph, path)


def function_table(path):
    """A plain GraphDef with a call that stays a call: size: float [] of a table of the function's own
    after key: int64 [1] was put into it."""
    with tf.Graph().as_default() as graph:
        key = tf1.placeholder(tf.int64, [1], name="key")

        @tf.function
        def put(key):
            table = tf.raw_ops.MutableHashTableV2(
                key_dtype=tf.int64, value_dtype=tf.float32
            )
            insert = tf.raw_ops.LookupTableInsertV2(
                table_handle=table, keys=key, values=tf.constant([1.0])
            )
            with tf.control_dependencies([insert]):
                size = tf.raw_ops.LookupTableSizeV2(table_handle=table)
            return tf.cast(size, tf.float32)

        tf.identity(put(key), name="size")
    write_graph_def(graph, path)


class Jit(tf.Module):
    """x: float [1, 256]. y: x by a constant of 256 KB in a function that is compiled."""

    @tf.function(jit_compile=True)
    def product(self, x):
        rng = np.random.default_rng(6)
        return x @ tf.constant(rng.standard_normal((256, 256), dtype=np.float32))

    @tf.function(input_signature=[tf.TensorSpec([1, 256], tf.float32, name="x")])
    def serve(self, x):
        return {"y": self.product(x)}


def jit(path):
    model = Jit()
    tf.saved_model.save(model, path, signatures=model.serve)


class Convolutions(tf.Module):
    """Layers whose values are large: 1 to 8 MB for an image of 128 x 128, 256 MB for a batch of 32.

    image: float [batch, height, width, 3]. y: float [batch, 10].
    """

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(7)

        def variable(*shape):
            scale = np.float32(np.prod(shape[:-1]) ** -0.5)
            return tf.Variable(rng.standard_normal(shape, dtype=np.float32) * scale)

        self.first = variable(3, 3, 3, 32)
        self.spread = variable(1, 1, 32, 128)
        self.deep = variable(3, 3, 32, 32)
        self.join = variable(1, 1, 128, 32)
        self.last = variable(32, 10)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="image")]
    )
    def serve(self, image):
        x = tf.nn.relu(tf.nn.conv2d(image, self.first, 1, "SAME"))
        wide = tf.nn.conv2d(x, self.spread, 1, "SAME")
        wide = wide * tf.sigmoid(wide)
        x = x + tf.nn.conv2d(wide, self.join, 1, "SAME")
        x = tf.nn.relu(tf.nn.conv2d(x, self.deep, 2, "SAME"))
        return {"y": tf.reduce_mean(x, axis=[1, 2]) @ self.last}


def convolutions(path):
    model = Convolutions()
    tf.saved_model.save(model, path, signatures=model.serve)


def every_type(path):
    """A SavedModel with a signature for each type that NumPy has, "int8" and so on, that gives x, of any
    shape, as y; the signature "both" gives it as y and z,
    and "sparse" takes a sparse tensor."""
    types = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 "
    types += "bool complex64 complex128 string float8_e5m2 float8_e4m3fn qint8"
    build = tf1.saved_model.build_tensor_info
    signatures = {}
    with tf.Graph().as_default(), tf1.Session() as session:
        for name in types.split():
            x = tf1.placeholder(tf.as_dtype(name), None, name=f"{name}/x")
            info = build(tf.identity(x, name=f"{name}/y"))
            signatures[name] = tf1.saved_model.build_signature_def(
                {"x": build(x)}, {"y": info}
            )
            if name == "float32":
                signatures["both"] = tf1.saved_model.build_signature_def(
                    {"x": build(x)}, {"y": info, "z": info}
                )
        sparse = build(tf1.sparse_placeholder(tf.float32, name="sparse"))
        signatures["sparse"] = tf1.saved_model.build_signature_def(
            {"x": sparse}, {"y": sparse}
        )
        builder = tf1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(
            session, [tf1.saved_model.SERVING], signatures
        )
        builder.save()


RESTORED_TYPES = (
    "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 "
    "uint64 bool complex64 complex128"
).split()


class Restored(tf.Module):
    """Variables of each type and of all kinds of shapes, one of 40 MB; each, and no input, is an output."""

    def __init__(self, changed):
        super().__init__()
        rng = np.random.default_rng(5)
        self.variables_by_name = {}
        for i, name in enumerate(RESTORED_TYPES):
            shapes = {"scalar": [], "matrix": [3, 5 + i], "empty": [4, 0, 2]}
            for shape_name, shape in shapes.items():
                value = tf.cast(rng.integers(0, 2, shape), name)
                if name not in ("bool", "bfloat16"):
                    value = tf.cast(rng.integers(0, 100, shape), name)
                self.add(f"{name}_{shape_name}", value)
        for i in range(200):
            self.add(f"small_{i:03}", rng.standard_normal(i % 7, dtype=np.float32))
        self.add("text", tf.constant(["", "a", "longer than a short string is"]))
        large = rng.standard_normal([2_500_000, 4], dtype=np.float32)
        self.add("large", large)
        if changed == "type":
            self.add("int32_matrix", tf.zeros([3, 11]))
        if changed == "shape":
            self.add("int32_matrix", tf.zeros([2, 2], tf.int32))

    def add(self, name, value):
        self.variables_by_name[name] = tf.Variable(value, name=name)

    @tf.function(input_signature=[])
    def serve(self):
        return {
            name: tf.identity(variable)
            for name, variable in self.variables_by_name.items()
        }


def restored(path, changed=None):
    model = Restored(changed)
    tf.saved_model.save(model, path, signatures=model.serve)


def restored_other_type(path):
    """As `restored`, but that a variable has another type."""
    restored(path, "type")


def restored_other_shape(path):
    """As `restored`, but that a variable has another shape."""
    restored(path, "shape")


def restored_tf1(path, most_parts=3):
    """TF1: resource and ref variables, whole and in parts that are slices of one tensor each, one of
    them of 48 MB. Outputs y0 to y7 and text_y."""
    parts = (1, most_parts)
    kinds = [(use_resource, n) for use_resource in (False, True) for n in parts]
    with tf.Graph().as_default(), tf1.Session() as session:
        for i, (use_resource, n) in enumerate(kinds):
            rows = 3_000_000 if use_resource and n > 1 else 1000
            for j, shape in enumerate([[rows, 4], [7]]):
                variable = tf1.get_variable(
                    f"v{i}_{j}",
                    shape,
                    initializer=tf1.random_normal_initializer(seed=i),
                    partitioner=tf1.fixed_size_partitioner(n),
                    use_resource=use_resource,
                )
                tf.identity(tf.convert_to_tensor(variable), name=f"y{2 * i + j}")
        text = tf1.get_variable(
            "text", initializer=tf.constant(["a", "", "bc"]), use_resource=True
        )
        tf.identity(text, name="text_y")
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, [tf1.saved_model.SERVING], {})
        builder.save()


def restored_tf1_halves(path):
    """As `restored_tf1`, with its variables in two parts instead of three."""
    restored_tf1(path, 2)


class State(tf.Module):
    """Two variables. assign(x, text) sets them, touch() writes a third one, read() gives x: float
    [64, 1024], rows: 32 of its rows, text: string [n]."""

    def __init__(self):
        super().__init__()
        self.x = tf.Variable(tf.zeros([64, 1024]))
        self.text = tf.Variable([""], shape=[None])
        self.touched = tf.Variable(0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([64, 1024], tf.float32, name="x"),
            tf.TensorSpec([None], tf.string, name="text"),
        ]
    )
    def assign(self, x, text):
        self.x.assign(x)
        self.text.assign(text)
        return {"n": tf.size(text)}

    @tf.function(input_signature=[])
    def touch(self):
        return {"n": self.touched.assign_add(1)}

    @tf.function(input_signature=[])
    def read(self):
        return {"x": self.x.read_value(), "rows": self.x[8:40], "text": self.text}


def state(path):
    model = State()
    tf.saved_model.save(
        model,
        path,
        signatures={"assign": model.assign, "touch": model.touch, "read": model.read},
    )


def unshare(graph):
    """Takes the shared name away from the first table of the graph."""
    table = next(op for op in graph.get_operations() if op.type == "HashTableV2")
    table._set_attr("shared_name", tf1.AttrValue(s=b""))


def mutable_table(path):
    """A plain GraphDef: `insert` (feeds key: string [n], value: int64 [n]) and `y`, a look-up of
    key, in a table without a shared name."""
    with tf.Graph().as_default() as graph:
        key = tf1.placeholder(tf.string, [None], name="key")
        value = tf1.placeholder(tf.int64, [None], name="value")
        table = tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        tf.raw_ops.LookupTableInsertV2(
            table_handle=table, keys=key, values=value, name="insert"
        )
        tf.raw_ops.LookupTableFindV2(
            table_handle=table,
            keys=key,
            default_value=tf.constant(-1, tf.int64),
            name="y",
        )
    write_graph_def(graph, path)


def tables(path):
    """A plain GraphDef with tables that map numbers to twos and halves of them, each its own way.

    key: int64 [n]. `init` fills a table that is never changed, for double: int64 [n], with 0 for what it
    lacks, and size: int64 []. `insert_rows` and `insert_dense` put key into two mutable ones, for rows:
    float [n, 2] and dense: float [n], with -1 for what they lack.
    """
    with tf.Graph().as_default() as graph:
        key = tf1.placeholder(tf.int64, [None], name="key")
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.range(10, dtype=tf.int64), tf.range(0, 20, 2, dtype=tf.int64)
            ),
            0,
        )
        tf.group(tf1.tables_initializer(), name="init")
        tf.identity(table.lookup(key), name="double")
        tf.identity(table.size(), name="size")
        half = tf.cast(key, tf.float32) / 2
        rows = tf.raw_ops.MutableHashTableOfTensorsV2(
            key_dtype=tf.int64, value_dtype=tf.float32, value_shape=[2]
        )
        dense = tf.raw_ops.MutableDenseHashTableV2(
            empty_key=tf.constant(-1, tf.int64),
            deleted_key=tf.constant(-2, tf.int64),
            value_dtype=tf.float32,
        )
        both = tf.stack([half, 2 * half], axis=1)
        for name, handle, values, missing in [
            ("rows", rows, both, [-1.0, -1.0]),
            ("dense", dense, half, -1.0),
        ]:
            tf.raw_ops.LookupTableInsertV2(
                table_handle=handle, keys=key, values=values, name=f"insert_{name}"
            )
            tf.raw_ops.LookupTableFindV2(
                table_handle=handle,
                keys=key,
                default_value=tf.constant(missing),
                name=name,
            )
    write_graph_def(graph, path)


def iterator(path, shared_name=None):
    """A plain GraphDef: `begin` makes an iterator, whose threads compute ahead; next:0 is the next of
    the numbers 0, 2, 4, ... (int64 [])."""
    with tf.Graph().as_default() as graph:
        numbers = tf.data.Dataset.range(1_000_000).map(
            lambda i: i * 2, num_parallel_calls=4
        )
        it = tf1.data.make_initializable_iterator(
            numbers.prefetch(64), shared_name=shared_name
        )
        tf.identity(it.get_next(), name="next")
        tf.group(it.initializer, name="begin")
    write_graph_def(graph, path)


def iterator_shared(path):
    iterator(path, shared_name="it")


def slow(path):
    """A plain GraphDef: slow/y is slow/x: float [] after slow/n: int32 [] rounds of a loop."""
    with tf.Graph().as_default() as graph, tf1.name_scope("slow"):
        n = tf1.placeholder(tf.int32, [], name="n")
        x = tf1.placeholder(tf.float32, [], name="x")
        _, y = tf.while_loop(
            lambda i, _: i < n, lambda i, y: (i + 1, tf.sin(y)), [0, x]
        )
        tf.identity(y, name="y")
    write_graph_def(graph, path)


def waits(path):
    """A plain GraphDef with a queue for one element: `put` enqueues x: float [] once there is room, got:
    float [] is dequeued once there is an element, `end` closes the queue and cancels what waits."""
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [], name="x")
        queue = tf1.FIFOQueue(1, tf.float32, [[]], shared_name="queue")
        tf.group(queue.enqueue(x), name="put")
        tf.identity(queue.dequeue(), name="got")
        tf.group(queue.close(cancel_pending_enqueues=True), name="end")
    write_graph_def(graph, path)


def steps(path):
    """A plain GraphDef of many operations, none of which takes long: y is x: float [n, n] times itself,
    400 times over."""
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [None, None], name="x")
        y = x
        for _ in range(400):
            y = tf.matmul(y, x)
        tf.identity(y, name="y")
    write_graph_def(graph, path)


def read_file(path):
    """A plain GraphDef whose kernel can't be cancelled: contents are those of the file called name: string
    []. One that is a pipe has none until somebody writes to it."""
    with tf.Graph().as_default() as graph:
        name = tf1.placeholder(tf.string, [], name="name")
        tf.io.read_file(name, name="contents")
    write_graph_def(graph, path)


def mapped(path):
    """A plain GraphDef: short and long are map_fn over constants, 4,096 and 100,000 of them. x: float [];
    short: float [4096]; long: float [100000]: sin(constant) * x."""
    rng = np.random.default_rng(8)
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [], name="x")
        for name, n in [("short", 4_096), ("long", 100_000)]:
            elements = tf.constant(rng.standard_normal(n, dtype=np.float32))
            tf.identity(tf.map_fn(lambda e: tf.sin(e) * x, elements), name=name)
    write_graph_def(graph, path)


def calls(path):
    """A plain GraphDef with a loop whose turns call a function that is not inlined, by a kernel that
    ends in a callback. n: int32 []; x: float []. y: x after n turns."""
    with tf.Graph().as_default() as graph:
        n = tf1.placeholder(tf.int32, [], name="n")
        x = tf1.placeholder(tf.float32, [], name="x")

        @tf.function(experimental_attributes={"_noinline": True})
        def turn(y):
            return tf.sin(y) + 0.25

        def body(i, y):
            called = turn(y)
            called.set_shape([])
            return i + 1, called

        _, y = tf.while_loop(lambda i, _: i < n, body, [0, x])
        tf.identity(y, name="y")
    write_graph_def(graph, path)


def both_sides(path):
    """A plain GraphDef with a Merge of what one side of a branch gives and of what needs both sides, which
    never comes. p: int32 []; m: float [2], -x where p is 0, else nothing; `assign` sets v to x where m
    is there; x is [1, 2], v begins as [7, 7] (`initialize`)."""
    with tf.Graph().as_default() as graph:
        p = tf1.placeholder(tf.int32, [], name="p") > 0
        x = tf.constant([1.0, 2.0])
        v = tf1.get_variable("v_", initializer=[7.0, 7.0], use_resource=True)
        no, yes = tf.raw_ops.Switch(data=x, pred=p)
        merge = tf.raw_ops.Merge(inputs=[-no, no + yes])
        tf.identity(merge.output, name="m")
        with tf.control_dependencies([merge.output]):
            tf.raw_ops.AssignVariableOp(resource=v.handle, value=x, name="assign")
        tf.group(v.initializer, name="initialize")
        tf.identity(v.read_value(), name="v")
    write_graph_def(graph, path)


def malformed(path, *nodes):
    """A plain GraphDef that TensorFlow refuses: a constant of 160 kB and these nodes, each a name, an operation
    and inputs."""
    graph = tf1.GraphDef()
    constant = graph.node.add(name="c", op="Const")
    constant.attr["dtype"].type = tf.float32.as_datatype_enum
    value = np.arange(40_000, dtype=np.float32).reshape(200, 200)
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    placeholder = graph.node.add(name="p", op="Placeholder")
    placeholder.attr["dtype"].type = tf.float32.as_datatype_enum
    for name, op, *inputs in nodes:
        node = graph.node.add(name=name, op=op, input=inputs)
        node.attr["T"].type = tf.float32.as_datatype_enum
        if op == "VariableV2":
            node.attr["dtype"].type = tf.float32.as_datatype_enum
            node.attr["shape"].shape.unknown_rank = True
        if op == "ScatterAdd":
            node.attr["Tindices"].type = tf.int32.as_datatype_enum
    with open(path, "wb") as file:
        file.write(graph.SerializeToString())


def malformed_cycle(path):
    malformed(path, ("a", "Identity", "c", "b"), ("b", "Identity", "a"))


def malformed_loop(path):
    malformed(path, ("x", "Identity", "x"), ("a", "MatMul", "x", "c"))


def malformed_twice(path):
    malformed(path, ("a", "Identity", "c"), ("a", "Identity", "a"))


def malformed_inputs(path):
    malformed(path, ("a", "MatMul", "p", "p", "c"), ("b", "MatMul", "c"))


def malformed_references(path):
    """Operations on a reference variable that lack inputs, or have a name twice."""
    malformed(
        path,
        ("v", "VariableV2"),
        ("a", "Assign", "v"),
        ("b", "AssignAdd", "v", "p"),
        ("b", "AssignAdd", "b", "p"),
        ("b", "AssignAdd", "b", "b"),
        ("d", "ScatterAdd", "v", "d"),
        ("e", "RefSwitch", "v"),
        ("e", "RefSwitch", "e:7", "e"),
        ("f", "Assign", "^v", "v"),
    )


def stripped(path):
    """A plain GraphDef of TensorFlow 1 without attributes that have their default value, as exporters strip them.

    x: float [2]. y: float [2], a reference variable and x; `initialize` sets it, `add` adds x to it.
    """
    with tf.Graph().as_default() as graph:
        x = tf1.placeholder(tf.float32, [2], name="x")
        v = tf1.Variable([1.0, 2.0], name="v", use_resource=False)
        tf.add(v, x, name="y")
        tf1.assign_add(v, x, name="add")
        tf.group(v.initializer, name="initialize")
    graph_def = graph.as_graph_def()
    for node in graph_def.node:
        if op_def := op_def_registry.get(node.op):
            for attr in op_def.attr:
                has_default = attr.HasField("default_value")
                if has_default and node.attr[attr.name] == attr.default_value:
                    del node.attr[attr.name]
    pathlib.Path(path).write_bytes(graph_def.SerializeToString())


OUTPUTS = 11  # of partly_missing


def partly_missing(path):
    """A plain GraphDef with a table of 4 MB, and a variable that has no value until `late`.

    ids: int32 [n], 0 to 999; x: float []; wants: int32 []. total: float [] of the table's largest value, of the
    rows ids and, where wants is not 0, of the variable without a value. rows: float [n, 8] of two small tables;
    out0 to out10: float [], x plus the number and the largest value. `initialize` sets all tables, `add`
    adds x to all values of the table, `assign` sets them to x, `scatter` sets the rows ids to x.
    """

    def variable(name, *shape):
        # Not a constant, so that the graph is small.
        value = tf.sin(tf.range(np.prod(shape), dtype=tf.float32))
        return tf1.get_variable(
            name, initializer=tf.reshape(value, shape), use_resource=True
        )

    with tf.Graph().as_default() as graph:
        ids = tf1.placeholder(tf.int32, [None], name="ids")
        x = tf1.placeholder(tf.float32, [], name="x")
        wants = tf1.placeholder(tf.int32, [], name="wants")
        table = variable("table", 1000, 1024)
        small = [variable(f"small{i}", 1000, 4) for i in range(2)]
        late = tf1.get_variable("late_", initializer=7.0, use_resource=True)
        missing = tf.cond(wants > 0, lambda: late.read_value(), lambda: 0.0)
        largest = tf.reduce_max(table.read_value())
        rows = tf.concat([tf.gather(t, ids) for t in small], axis=1, name="rows")
        tf.add_n([largest, tf.reduce_sum(rows), missing], name="total")
        for i in range(OUTPUTS):
            tf.add(x + float(i), largest, name=f"out{i}")
        tables = [table, *small]
        tf.group([t.initializer for t in tables], name="initialize")
        tf.group(late.initializer, name="late")
        fill = tf.fill([1000, 1024], x)
        tf.group(table.assign(fill), name="assign")
        tf.group(table.assign_add(fill), name="add")
        tf.group(
            *[
                tf.raw_ops.ResourceScatterUpdate(
                    resource=t.handle,
                    indices=ids,
                    updates=tf.fill([tf.size(ids), t.shape[1]], x),
                )
                for t in tables
            ],
            name="scatter",
        )
    write_graph_def(graph, path)


def write_graph_def(graph, path):
    pathlib.Path(path).write_bytes(graph.as_graph_def().SerializeToString())


SAVED_MODELS = [
    wide_deep,
    wide_deep_large,
    control_flow,
    strings,
    lookups,
    jit,
    convolutions,
    tf1_saved_model,
    noisy,
    half_plus,
    half_plus_three,
    on_gpu,
    frozen_large,
    every_type,
    restored,
    restored_other_type,
    restored_other_shape,
    restored_tf1,
    restored_tf1_halves,
    state,
]
GRAPH_DEFS = [
    mlp_frozen,
    init_op,
    mutable_table,
    tables,
    iterator,
    iterator_shared,
    slow,
    waits,
    steps,
    read_file,
    mapped,
    calls,
    partly_missing,
    both_sides,
    malformed_cycle,
    malformed_loop,
    malformed_twice,
    malformed_inputs,
    malformed_references,
    stripped,
    writes,
    if_write,
    replaced,
    second_cpu,
    function_table,
    trivial,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    names = [make.__name__ for make in SAVED_MODELS + GRAPH_DEFS]
    parser.add_argument("name", nargs="*", help="of: " + ", ".join(names))
    args = parser.parse_args()
    if unknown := set(args.name) - set(names):
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)
    for make in SAVED_MODELS + GRAPH_DEFS:
        name = make.__name__ + (".pb" if make in GRAPH_DEFS else "")
        path = args.out / name
        if args.name and make.__name__ not in args.name:
            continue
        start = time.monotonic()
        shutil.rmtree(path, ignore_errors=True)
        make(str(path))
        print(f"made {path} in {time.monotonic() - start:.1f} s", flush=True)


main()
