"""Models as TensorFlow 1 has them: reference variables, loops and conditions of v1, feature columns."""

import math
from functools import partial

import numpy as np
import tensorflow as tf
import tensorflow.compat.v1 as tf1

import shapes


class BilstmTagger:
    """Tags for each of 20 words: an LSTM from the front and one from the back, in loops."""

    shape = shapes.BILSTM
    output = [shape.length, shape.tags]

    def weights(self, w):
        s = self.shape
        w.normal("words", s.rows, s.width, scale=0.5)
        for way in ["forward", "backward"]:
            kernel_and_bias(w, way, s, 4 * s.hidden, lstm_to_onnx)
            w.to_onnx[f"{way}.bias"] = lstm_bias_to_onnx
        w.normal("tag.kernel", 2 * s.hidden, s.tags, scale=math.sqrt(1 / s.hidden))
        w.normal("tag.bias", s.tags, scale=0.1)

    def inputs(self):
        s = self.shape
        return {"text": {"dims": [-1, s.length], "values": {"ids": s.rows}}}

    def score(self, w, text):
        s = self.shape
        words = tf1.nn.embedding_lookup(w["words"], text)
        there = self.states(w, "forward", words)
        back = self.states(w, "backward", tf.reverse(words, [1]))
        both = tf.concat([there, tf.reverse(back, [1])], axis=-1)
        tags = tf.matmul(tf.reshape(both, [-1, 2 * s.hidden]), w["tag.kernel"])
        tags = tf.nn.softmax(tf.nn.bias_add(tags, w["tag.bias"]))
        return tf.reshape(tags, [-1, s.length, s.tags])

    def states(self, w, way, words):
        return loop(partial(lstm_cell, w, way), words, self.shape.hidden, states=2)


class Gru:
    """A GRU over 100 events of a user; one score."""

    shape = shapes.GRU

    def weights(self, w):
        s = self.shape
        w.normal("events", s.rows, s.width, scale=0.5)
        kernel_and_bias(w, "gates", s, 2 * s.hidden, gates_to_onnx)
        w.to_onnx["gates.bias"] = gates_to_onnx
        kernel_and_bias(w, "new", s, s.hidden, np.asarray)
        w.normal("score.kernel", s.hidden, 1, scale=math.sqrt(1 / s.hidden))
        w.normal("score.bias", 1, scale=0.1)

    def inputs(self):
        s = self.shape
        return {"ids": {"dims": [-1, s.length], "values": {"ids": s.rows}}}

    def score(self, w, ids):
        s = self.shape
        x = tf1.nn.embedding_lookup(w["events"], ids)
        last = loop(partial(gru_cell, w), x, s.hidden, states=1)[:, -1]
        x = tf.nn.bias_add(tf.matmul(last, w["score.kernel"]), w["score.bias"])
        return tf.sigmoid(tf.squeeze(x, axis=1))


class WideDeepColumns:
    """Wide & Deep of feature columns, as tf.estimator exports it: it parses tf.Examples, hashes 26 strings, looks
    them up in partitioned embeddings, and adds a linear model of the same strings."""

    shape = shapes.WIDE_DEEP_COLUMNS

    def weights(self, w):
        pass

    def inputs(self):
        s = self.shape
        values = {"examples": {"fields": s.fields, "floats": s.dense, "ids": s.ids}}
        return {"examples": {"dims": [-1], "values": values}}

    def score(self, w, examples):
        s = self.shape
        column = tf1.feature_column
        fields = [
            column.categorical_column_with_hash_bucket(f"c{i}", s.rows)
            for i in range(s.fields)
        ]
        numbers = [column.numeric_column(f"d{i}") for i in range(s.dense)]
        random = tf1.random_uniform_initializer(-0.1, 0.1, seed=1)
        deep = numbers + [
            column.embedding_column(field, s.width, initializer=random)
            for field in fields
        ]
        spec = column.make_parse_example_spec(deep)
        features = tf1.parse_example(examples, spec)
        partitioner = tf1.fixed_size_partitioner(s.parts)
        with tf1.variable_scope("dnn", partitioner=partitioner):
            x = column.input_layer(features, deep)
            sizes = [s.fields * s.width + s.dense, *s.hidden, 1]
            for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
                kernel = tf1.get_variable(f"kernel{i}", [a, b], initializer=random)
                bias = tf1.get_variable(f"bias{i}", [b], initializer=random)
                x = tf.nn.bias_add(tf.matmul(x, kernel), bias)
                if i < len(s.hidden):
                    x = tf.nn.relu(x)
        with tf1.variable_scope("linear", partitioner=partitioner):
            wide = column.linear_model(features, fields)
        return tf.sigmoid(tf.squeeze(x + wide, axis=1))


def kernel_and_bias(w, name, s, outputs, to_onnx):
    """Of a product with both what is new and what was before; ONNX has a kernel for each."""
    w.normal(f"{name}.kernel", s.width + s.hidden, outputs, scale=s.hidden**-0.5)
    w.normal(f"{name}.bias", outputs, scale=0.1)
    w.parts[f"{name}.kernel"] = {
        f"{name}.input": lambda kernel: to_onnx(kernel[: s.width]).T,
        f"{name}.hidden": lambda kernel: to_onnx(kernel[s.width :]).T,
    }


def loop(cell, x, hidden, states):
    """The outputs of a cell for each turn: batch first, as they come and go."""
    length = x.shape[1]
    steps = tf.transpose(x, [1, 0, 2])
    given = tf1.TensorArray(tf.float32, length).unstack(steps)
    taken = tf1.TensorArray(tf.float32, length)
    zeros = [tf.zeros([tf.shape(x)[0], hidden]) for _ in range(states)]

    def turn(i, taken, *state):
        state = cell(given.read(i), *state)
        return i + 1, taken.write(i, state[0]), *state

    _, taken, *_ = tf1.while_loop(lambda i, *_: i < length, turn, [0, taken, *zeros])
    return tf.transpose(taken.stack(), [1, 0, 2])


def product(w, name, *inputs):
    x = tf.matmul(tf.concat(inputs, 1), w[f"{name}.kernel"])
    return tf.nn.bias_add(x, w[f"{name}.bias"])


def lstm_cell(w, name, x, h, c):
    """Gates in the order of TensorFlow's BasicLSTMCell: in, new, forget, out."""
    i, j, f, o = tf.split(product(w, name, x, h), 4, axis=1)
    c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
    return tf.tanh(c) * tf.sigmoid(o), c


def lstm_to_onnx(array):
    i, j, f, o = np.split(array, 4, axis=-1)
    return np.concatenate([i, o, f, j], axis=-1)


def lstm_bias_to_onnx(bias):
    """ONNX adds no 1 to forget, and has one more bias for the hidden state."""
    i, j, f, o = np.split(bias, 4)
    return np.concatenate([i, o, f + 1, j, 0 * bias])


def gru_cell(w, x, h):
    """As TensorFlow's GRUCell."""
    r, u = tf.split(tf.sigmoid(product(w, "gates", x, h)), 2, axis=1)
    new = tf.tanh(product(w, "new", x, r * h))
    return (u * h + (1 - u) * new,)


def gates_to_onnx(array):
    """ONNX has update before reset."""
    r, u = np.split(array, 2, axis=-1)
    return np.concatenate([u, r], axis=-1)


MODELS = {
    "bilstm_tagger": BilstmTagger,
    "gru": Gru,
    "wide_deep_columns": WideDeepColumns,
}


def save(model, weights, path, placeholder):
    """Writes a SavedModel; gives the names of its tensors."""
    tf1.disable_control_flow_v2()
    with tf.Graph().as_default(), tf1.Session() as session:
        inputs = {name: placeholder(name, x) for name, x in model.inputs().items()}
        with tf1.variable_scope("", use_resource=False):
            # A constant of each size would be in the graph as well.
            variables = {
                name: tf1.get_variable(
                    name, array.shape, initializer=tf1.zeros_initializer()
                )
                for name, array in weights.arrays.items()
            }
            score = tf.identity(model.score(variables, **inputs), name="score")
        session.run(tf1.global_variables_initializer())
        for name, array in weights.arrays.items():
            variables[name].load(array, session)
        info = tf1.saved_model.build_tensor_info
        signature = tf1.saved_model.build_signature_def(
            {name: info(tensor) for name, tensor in inputs.items()},
            {"score": info(score)},
            tf1.saved_model.PREDICT_METHOD_NAME,
        )
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, [tf1.saved_model.SERVING], {"serving_default": signature}
        )
        builder.save()
    tf1.enable_control_flow_v2()
    return {name: tensor.name for name, tensor in inputs.items()}, score.name
