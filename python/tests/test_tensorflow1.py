"""Graphs as TensorFlow 1 has them run as programs, with variables and frozen, and answer as in a stock session."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from both import Both, both

tf1 = tf.compat.v1

# What a kind of graph is fed, in the order of its arguments, and how it makes its outputs of that.
Kind = tuple[Callable[..., list[Any]], list[Any]]
KINDS: dict[str, Kind] = {}


def kind(*fed: Any) -> Callable[[Callable[..., list[Any]]], Callable[..., list[Any]]]:
    def add(build: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        KINDS[build.__name__] = (build, [np.asarray(value) for value in fed])
        return build

    return add


def numbers(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def weights(*shape: int) -> Any:
    name = f"weights{len(tf1.global_variables())}"
    random = tf1.random_uniform_initializer(-0.5, 0.5, seed=1)
    return tf1.get_variable(name, shape, initializer=random, use_resource=False)


def while_loop(body: Any, n: Any, *state: Any, **options: Any) -> list[Any]:
    turned = tf1.while_loop(
        lambda i, *_: i < n, lambda i, *s: [i + 1, *body(i, *s)], [0, *state], **options
    )
    return list(turned[1:])


@kind(numbers(3, 7, 6), np.array([7, 3, 0], np.int32))
def lstm_with_lengths(x: Any, lengths: Any) -> list[Any]:
    """As dynamic_rnn: what is after a sequence's end is copied, or not computed at all."""
    kernel, bias = weights(6 + 4, 4 * 4), weights(4 * 4)
    steps = tf.transpose(x, [1, 0, 2])
    given = tf1.TensorArray(tf.float32, tf.shape(steps)[0]).unstack(steps)
    taken = tf1.TensorArray(tf.float32, tf.shape(steps)[0])
    least, most = tf.reduce_min(lengths), tf.reduce_max(lengths)

    def turn(i: Any, taken: Any, h: Any, c: Any) -> list[Any]:
        def cell() -> list[Any]:
            gates = tf.matmul(tf.concat([given.read(i), h], 1), kernel)
            a, j, f, o = tf.split(tf.nn.bias_add(gates, bias), 4, axis=1)
            new = c * tf.sigmoid(f + 1) + tf.sigmoid(a) * tf.tanh(j)
            return [tf.tanh(new) * tf.sigmoid(o), new]

        def copied() -> list[Any]:
            new_h, new_c = cell()
            over = i >= lengths
            return [tf1.where(over, h, new_h), tf1.where(over, c, new_c)]

        h2, c2 = tf1.cond(
            i >= most,
            lambda: [tf.identity(h), tf.identity(c)],
            lambda: tf1.cond(i < least, cell, copied),
        )
        h2.set_shape(h.shape)
        c2.set_shape(c.shape)
        return [taken.write(i, h2), h2, c2]

    zeros = tf.zeros([tf.shape(x)[0], 4])
    taken, h, c = while_loop(turn, tf.shape(steps)[0], taken, zeros, zeros)
    return [taken.stack(), h, c]


@kind(numbers(5, 4), np.array([1, 2, 3, 4, 0], np.int32))
def maps_scans_and_folds(x: Any, n: Any) -> list[Any]:
    return [
        tf1.map_fn(lambda v: tf.reduce_sum(v) * v, x),
        *tf1.map_fn(lambda v: (v[0] * 2, v[1] + 1), (x, n)),
        tf1.scan(lambda a, v: a * 0.5 + v, x),
        tf1.foldl(lambda a, v: a * 0.5 + v, x),
        tf1.foldr(lambda a, v: a * 0.5 + v, x),
    ]


@kind(np.zeros((0, 4), np.float32))
def a_map_over_nothing(x: Any) -> list[Any]:
    return [tf1.map_fn(lambda v: v * 2, tf.ensure_shape(x, [None, 4]))]


@kind(np.array([b"a b", b"c", b""], object))
def a_map_over_strings(x: Any) -> list[Any]:
    count = tf1.map_fn(lambda v: tf.size(tf1.string_split([v]).values), x, tf.int32)
    return [count, tf1.map_fn(lambda v: tf.strings.join([v, v]), x)]


@kind(np.bool_(True), np.bool_(False), numbers(3))
def conditions_in_conditions(p: Any, q: Any, x: Any) -> list[Any]:
    v = weights(3)
    inner = [
        lambda: tf1.cond(q, lambda: x * v, lambda: x - v),
        lambda: tf1.cond(q, lambda: x, lambda: v + 0),
    ]
    return [tf1.cond(p, *inner), tf1.cond(q, *inner)]


@kind(np.int32(2), numbers(3))
def cases(k: Any, x: Any) -> list[Any]:
    pairs = [(tf.equal(k, i), lambda i=i: x * i) for i in range(3)]
    switched = tf.switch_case(k, [lambda: x, lambda: x * 2], default=lambda: -x)
    return [tf1.case(pairs, default=lambda: -x, exclusive=True), switched]


@kind(np.bool_(True), np.int32(5), numbers(3))
def loops_and_conditions_in_one_another(p: Any, n: Any, x: Any) -> list[Any]:
    v = weights(3)
    in_a_branch = tf1.cond(
        p, lambda: while_loop(lambda i, y: [y * 1.1], n, x), lambda: [x]
    )

    def choose(i: Any, y: Any) -> list[Any]:
        return [tf1.cond(tf.equal(i % 2, 0), lambda: y * v, lambda: y + 1)]

    def nested(i: Any, y: Any) -> list[Any]:
        return while_loop(lambda j, z: [z * v + 1], i, y)

    return [in_a_branch, *while_loop(choose, n, x), *while_loop(nested, n, x)]


@kind()
def a_loop_of_constants() -> list[Any]:
    return while_loop(lambda i, y: [y * 1.1 + weights(3)], 10, tf.ones([3]))


@kind(np.int32(40), np.abs(numbers(3)))
def a_loop_that_ends_early(n: Any, x: Any) -> list[Any]:
    return list(
        tf1.while_loop(
            lambda i, y, done: (i < n) & ~tf.reduce_all(done),
            lambda i, y, done: (i + 1, y * 1.5, y > 10),
            [0, x, x > 10],
            parallel_iterations=1,
        )
    )


@kind(numbers(2, 5))
def a_beam_search(logits: Any) -> list[Any]:
    table = weights(5, 5)

    def turn(i: Any, sequences: Any, scores: Any) -> list[Any]:
        likely = tf.nn.log_softmax(tf.nn.embedding_lookup(table, sequences[:, :, -1]))
        total = tf.reshape(scores[:, :, None] + likely, [tf.shape(sequences)[0], -1])
        scores, best = tf.nn.top_k(total, k=3)
        kept = tf.gather(sequences, best // 5, batch_dims=1)
        return [tf.concat([kept, (best % 5)[:, :, None]], -1), scores]

    scores, first = tf.nn.top_k(logits, k=3)
    shapes = [[], [None, 3, None], [None, 3]]
    invariants = [tf.TensorShape(shape) for shape in shapes]
    state = [first[:, :, None], scores]
    return while_loop(turn, 6, *state, shape_invariants=invariants)


@kind(np.int32(4), numbers(3), numbers(6, 2))
def arrays(n: Any, x: Any, rows: Any) -> list[Any]:
    array = tf1.TensorArray(tf.float32, 0, dynamic_size=True, clear_after_read=False)
    array, _ = while_loop(lambda i, a, y: [a.write(i, y), y * 2], n, array, x)
    parts = tf1.TensorArray(tf.float32, 3, infer_shape=False, clear_after_read=False)
    parts = parts.split(rows, [1, 2, 3])
    return [
        array.stack(),
        array.read(n - 1),
        array.size(),
        parts.read(1),
        parts.concat(),
    ]


@kind(np.int32(4), numbers(3))
def gradients_of_a_loop(n: Any, x: Any) -> list[Any]:
    v = weights(3)
    [y] = while_loop(lambda i, y: [tf.sin(y * v)], n, x)
    return [tf1.gradients(y, x)[0]]


@kind(np.bool_(False), numbers(3, 4))
def batch_normalisation_and_dropout(training: Any, x: Any) -> list[Any]:
    mean, variance = weights(4), tf.abs(weights(4))
    moments = tf1.cond(
        training, lambda: tf.nn.moments(x, [0]), lambda: (mean + 0, variance + 0)
    )
    y = tf.nn.batch_normalization(x, *moments, None, None, 1e-3)
    return [tf1.cond(training, lambda: tf1.nn.dropout(y, rate=0.5), lambda: y)]


@kind(np.int32(6), numbers(2, 3))
def checks(n: Any, x: Any) -> list[Any]:
    def turn(i: Any, y: Any) -> list[Any]:
        with tf.control_dependencies([tf1.assert_less(i, 100)]):
            return [tf1.check_numerics(y * 1.1, "y")]

    asserted = [tf1.assert_rank(x, 2), tf1.Assert(tf.reduce_all(x < 100), [x])]
    printed = tf.print(x, output_stream="file:///dev/null")
    with tf.control_dependencies([*asserted, printed]):
        return [*while_loop(turn, n, x), tf1.verify_tensor_all_finite(x * 2, "x")]


@kind(numbers(3))
def operations_with_harmless_state(x: Any) -> list[Any]:
    x = tf.ensure_shape(x, [3])
    empty = tf.raw_ops.Empty(shape=[3], dtype=tf.float32, init=True)
    pair = [x[None], x[None] * 2]
    concatenated = tf.raw_ops.ParallelConcat(values=pair, shape=[2, 3])
    return [empty + x, tf.raw_ops.DeepCopy(x=x), concatenated]


EXAMPLE = tf.train.Example()
EXAMPLE.features.feature["a"].float_list.value.extend([1, 2])
EXAMPLE.features.feature["b"].bytes_list.value.extend([b"x", b"y"])


@kind(np.array([EXAMPLE.SerializeToString()] * 3, object))
def parsed_examples(examples: Any) -> list[Any]:
    spec = {
        "a": tf1.FixedLenFeature([2], tf.float32),
        "b": tf1.VarLenFeature(tf.string),
    }
    parsed = tf1.parse_example(examples, spec)
    ids = tf.strings.to_hash_bucket_fast(parsed["b"].values, 10)
    sparse = tf.SparseTensor(parsed["b"].indices, ids, parsed["b"].dense_shape)
    found = tf1.nn.safe_embedding_lookup_sparse([weights(10, 4)], sparse)
    return [tf.concat([parsed["a"], found], 1)]


@kind(np.sort(np.abs(numbers(2, 6, 4)), -1), np.abs(numbers(2, 6)))
def boxes_that_overlap_least(boxes: Any, scores: Any) -> list[Any]:
    def best(one: Any) -> Any:
        chosen = tf.image.non_max_suppression(*one, 3, 0.5)
        chosen = tf.pad(chosen, [[0, 3 - tf.size(chosen)]])
        return tf.gather(one[0], chosen), tf.gather(one[1], chosen)

    return list(tf1.map_fn(best, (boxes, scores)))


@kind(numbers(3))
def what_is_fed_and_fetched_twice(x: Any) -> list[Any]:
    y = x * 2
    return [y, y, x]


@pytest.fixture
def control_flow_of_v1() -> Iterator[None]:
    tf1.disable_control_flow_v2()
    yield
    tf1.enable_control_flow_v2()


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_graphs(name: str, control_flow_of_v1: None) -> None:
    make, fed = KINDS[name]
    feeds: dict[str, Any] = {}
    fetches: list[str] = []

    def build() -> None:
        inputs = []
        for value in fed:
            dtype = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
            inputs.append(tf1.placeholder(dtype, [None] * value.ndim))
            feeds[inputs[-1].name] = value
        fetches.extend(output.name for output in make(*inputs))

    with both(build) as pair:
        pair.run(tf1.global_variables_initializer())
        runs_as_program(pair, fetches, feeds)
        frozen = tf1.graph_util.convert_variables_to_constants(
            pair.stock,
            pair.graph.as_graph_def(),
            [fetch.partition(":")[0] for fetch in fetches],
        )
    with both(lambda: tf1.import_graph_def(frozen, name="")) as pair:
        runs_as_program(pair, fetches, feeds)


def runs_as_program(pair: Both, fetches: list[str], feeds: dict[str, Any]) -> None:
    for _ in range(3):
        answer = pair.run(fetches, feeds)
        assert not isinstance(answer, type), answer
    for fetch in sorted(set(fetches) - set(feeds)):
        pair.run(fetch, feeds)
        assert pair.runs_as(fetch) == "program", pair.explained(fetch)["why"]
