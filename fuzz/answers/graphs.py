"""Random graphs, the same for the same seed.

A graph computes with tensors of three shapes. What it may be made of: loops and branches of TensorFlow 1
and 2, in one another; loops over TensorArrays and TensorLists; functions; constants of 1 byte to 1 MB;
embeddings; variables that requests write.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model import loader_impl

tf1 = tf.compat.v1
# Python's own branches and loops stay what they are.
as_it_is = tf.autograph.experimental.do_not_convert

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 3)]
ROWS = 20  # of an embedding
CONSTANT_SIZES = [1, 2, 10, 300, 5_000, 60_000, 260_000]  # elements of 4 bytes

Env = dict[tuple[int, ...], list[tf.Tensor]]


@dataclass
class Case:
    """A graph with what requests may ask it for."""

    graph: tf.Graph
    kind: str
    # Placeholders, each with a function that makes what to feed.
    feeds: list[tuple[tf.Tensor, Callable[[random.Random], Any]]] = field(
        default_factory=list
    )
    outputs: list[tf.Tensor] = field(default_factory=list)
    # Tensors inside of loops and branches.
    inner: list[tf.Tensor] = field(default_factory=list)
    # Operations that write, and reads of what they write; only one of both in a request.
    writes: list[tf.Operation] = field(default_factory=list)
    reads: list[tf.Tensor] = field(default_factory=list)
    # Fetches of these write, too, so that no request has two of them.
    writing_outputs: list[tf.Tensor] = field(default_factory=list)
    # Runs for minutes, unless it is stopped.
    endless: tf.Tensor | None = None
    initialise: Callable[[Any], Any] = lambda session: None
    # Whether all requests must, that are plain and succeed.
    runs_as_programs: bool = True


def floats(shape: tuple[int, ...]) -> Callable[[random.Random], np.ndarray]:
    return lambda r: np.array(
        [r.uniform(-2, 2) for _ in range(int(np.prod(shape)))], np.float32
    ).reshape(shape)


def ints(low: int, high: int) -> Callable[[random.Random], np.ndarray]:
    return lambda r: np.array(r.randint(low, high), np.int32)


class Builder:
    def __init__(self, seed: int, v2: bool) -> None:
        self.r = random.Random(seed)
        self.v2 = v2
        self.case: Case
        self.tables: list[Any] = []
        self.counters: list[Any] = []
        # Small integers to be fed: bounds and choices.
        self.bounds: list[tf.Tensor] = []
        self.flags: list[tf.Tensor] = []
        self.ids: list[tf.Tensor] = []
        self.budget = self.r.choice([3, 6, 12, 25])
        self.turns = 1  # of all loops around, multiplied

    # Values.

    def pick(self, env: Env, shape: tuple[int, ...]) -> tf.Tensor:
        if env[shape] and self.r.random() < 0.9:
            # Late ones more often, so that graphs are deep, too.
            return (
                self.r.choice(env[shape][-3:])
                if self.r.random() < 0.6
                else self.r.choice(env[shape])
            )
        return self.constant(shape)

    def constant(self, shape: tuple[int, ...]) -> tf.Tensor:
        if self.r.random() < 0.5:
            return tf.constant(floats(shape)(self.r))
        size = self.r.choice(CONSTANT_SIZES)
        rng = np.random.default_rng(self.r.randrange(1 << 30))
        n = max(size, int(np.prod(shape)))
        dtype = self.r.choice([np.float32, np.float32, np.float64, np.int32, np.uint8])
        values = (rng.standard_normal(n) * 50).astype(dtype)
        if self.r.random() < 0.2:
            values[:] = values[0]  # which protocol buffers shorten
        how = self.r.randrange(4)
        if how == 0:
            big = tf.constant(values)
        elif how == 1:
            half = n // 2
            big = tf.concat([tf.constant(values[half:]), tf.constant(values[:half])], 0)
        elif how == 2 and n % 2 == 0:
            big = tf.reshape(tf.transpose(tf.constant(values.reshape(2, -1))), [-1])
        else:
            big = tf.reverse(tf.constant(values), [0])
        if self.r.random() < 0.3 and n > 8:
            i = self.r.choice(self.bounds)
            offset = tf.math.floormod(i, n - 6)
            big = tf.slice(big, [offset], [6])
        big = tf.cast(big, tf.float32)
        return tf.tanh(tf.reshape(big[: int(np.prod(shape))], shape))

    def reshaped(self, env: Env, shape: tuple[int, ...]) -> tf.Tensor:
        source = self.r.choice(SHAPES)
        x = self.pick(env, source)
        if source == shape:
            return tf.identity(x)
        if len(source) > len(shape):
            return self.r.choice([tf.reduce_sum, tf.reduce_max, tf.reduce_mean])(
                x, axis=list(range(len(source) - len(shape)))
            )
        return tf.broadcast_to(x, shape)

    def plain(self, env: Env, shape: tuple[int, ...]) -> tf.Tensor:
        x, y = self.pick(env, shape), self.pick(env, shape)
        return self.r.choice(
            [
                lambda: x + y,
                lambda: x - y,
                lambda: tf.sin(x) * y,
                lambda: tf.tanh(x),
                lambda: tf.maximum(x, y),
                lambda: -x,
                lambda: tf.where(x > y, x, y),
                lambda: tf.add_n([x, y, x]),
                lambda: tf.cast(tf.cast(x, tf.float64) * 1.5, tf.float32),
                lambda: tf.nn.relu(x) + 0.5,
                lambda: tf.math.softplus(x),
                lambda: tf.identity(x),
                lambda: tf.reverse(x, [0]) if shape else x * x,
                lambda: tf.concat([x, y], 0)[: shape[0]] if shape else x * y,
                lambda: (
                    tf.matmul(x, tf.constant(floats((3, 3))(self.r)))
                    if len(shape) == 2
                    else tf.stack([x, y])[self.r.randrange(2)]
                ),
            ]
        )()

    def number(self, env: Env) -> tf.Tensor:
        """An int32, small and not negative."""
        if self.bounds and self.r.random() < 0.5:
            return self.r.choice(self.bounds)
        x = self.pick(env, ())
        return tf.cast(tf.clip_by_value(tf.abs(x) * 2, 0.0, 4.0), tf.int32)

    def predicate(self, env: Env) -> tf.Tensor:
        if self.flags and self.r.random() < 0.4:
            return self.r.choice(self.flags)
        if self.r.random() < 0.1:
            return tf.constant(self.r.random() < 0.5)
        return self.pick(env, ()) > self.r.uniform(-1, 1)

    # Parts.

    def grow(self, env: Env, parts: int, depth: int) -> None:
        for _ in range(parts):
            if self.budget <= 0:
                return
            self.budget -= 1
            self.add(env, depth)

    def add(self, env: Env, depth: int) -> None:
        shape = self.r.choice(SHAPES)
        choices: list[tuple[float, Callable[[], Any]]] = [
            (8, lambda: self.plain(env, shape)),
            (2, lambda: self.reshaped(env, shape)),
            (2, lambda: self.constant(shape)),
            (1.5, lambda: self.embed(env, shape)),
            (0.4, lambda: self.count(env, shape)),
        ]
        if depth < 3:
            choices += [
                (3, lambda: self.condition(env, depth)),
                (1, lambda: self.switch(env, depth)),
                (3, lambda: self.loop(env, depth)),
                (1, lambda: self.array_loop(env, shape, depth)),
                (0.7, lambda: self.call(env, shape, depth)),
            ]
            if self.v2:
                choices += [
                    (1, lambda: self.mapped(env, shape, depth)),
                    (0.5, lambda: self.scanned(env, shape, depth)),
                ]
        weights, makers = zip(*choices)
        made = self.r.choices(makers, weights)[0]()
        made = made if isinstance(made, (list, tuple)) else [made]
        for tensor in made:
            env[tuple(tensor.shape.as_list())].append(tensor)
            if depth and tensor.graph is self.case.graph:
                self.case.inner.append(tensor)

    def copy(self, env: Env) -> Env:
        return {shape: list(tensors) for shape, tensors in env.items()}

    def results(self, env: Env, shapes: list[tuple[int, ...]]) -> list[tf.Tensor]:
        return [self.pick(env, shape) for shape in shapes]

    def branch(
        self, env: Env, shapes: list[tuple[int, ...]], depth: int
    ) -> Callable[[], list[tf.Tensor]]:
        parts = self.r.randrange(4)

        def make() -> list[tf.Tensor]:
            own = self.copy(env)
            self.grow(own, parts, depth + 1)
            return self.results(own, shapes)

        return make

    def condition(self, env: Env, depth: int) -> list[tf.Tensor]:
        shapes = [self.r.choice(SHAPES) for _ in range(self.r.randint(1, 3))]
        predicate = self.predicate(env)
        yes, no = self.branch(env, shapes, depth), self.branch(env, shapes, depth)
        got = tf.cond(predicate, yes, no)
        return list(got) if isinstance(got, (list, tuple)) else [got]

    def switch(self, env: Env, depth: int) -> list[tf.Tensor]:
        shapes = [self.r.choice(SHAPES) for _ in range(self.r.randint(1, 2))]
        branches = [
            self.branch(env, shapes, depth) for _ in range(self.r.randint(1, 4))
        ]
        index = self.number(env) - self.r.randrange(2)
        got = tf.switch_case(index, branches)
        return list(got) if isinstance(got, (list, tuple)) else [got]

    def bound(self, env: Env) -> tf.Tensor:
        if self.r.random() < 0.4:
            n = self.r.choice([0, 1, 2, 3, 7] + [1000] * (self.turns == 1))
            # TensorFlow takes such a loop apart, and what is left of it is no program.
            self.case.runs_as_programs &= n > 0
            return tf.constant(n)
        return self.number(env)

    def loop(self, env: Env, depth: int) -> list[tf.Tensor]:
        shapes = [self.r.choice(SHAPES) for _ in range(self.r.randint(1, 4))]
        first = self.results(env, shapes)
        bound = self.bound(env)
        parts = self.r.randrange(4)
        early = self.r.random() < 0.3
        limit = self.r.uniform(-1, 1)
        handed = [self.r.choice(["new", "same", "swap", "new"]) for _ in shapes]
        parallel = self.r.choice([1, 10])

        def test(i: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
            more = i < bound
            if early:
                more = tf.logical_and(more, tf.reduce_min(values[0]) > limit - 2.0)
            return more

        def body(i: tf.Tensor, *values: tf.Tensor) -> list[tf.Tensor]:
            self.turns *= 8
            own = self.copy(env)
            if self.r.random() < 0.5:
                own = {shape: [] for shape in SHAPES}
            for shape, value in zip(shapes, values):
                own[shape].append(value)
            own[()].append(tf.cast(i, tf.float32) * 0.1)
            self.grow(own, parts, depth + 1)
            nexts = []
            for k, (shape, value) in enumerate(zip(shapes, values)):
                others = [
                    v for j, v in enumerate(values) if shapes[j] == shape and j != k
                ]
                if handed[k] == "same":
                    nexts.append(value)
                elif handed[k] == "swap" and others:
                    nexts.append(self.r.choice(others))
                else:
                    nexts.append(tf.tanh(self.pick(own, shape)) + 0.01)
            self.turns //= 8
            return [i + 1, *nexts]

        last = tf.while_loop(test, body, [0, *first], parallel_iterations=parallel)
        results = list(last[1:])
        for value, shape in zip(results, shapes):
            value.set_shape(shape)
        results.append(tf.cast(last[0], tf.float32) * 0.5)
        return results

    def array_loop(
        self, env: Env, shape: tuple[int, ...], depth: int
    ) -> list[tf.Tensor]:
        """A loop that reads an array and writes one."""
        n = self.r.choice([1, 3, 5])
        source = tf.TensorArray(tf.float32, n, clear_after_read=False)
        source = source.unstack(tf.stack([self.pick(env, shape) for _ in range(n)]))
        out = tf.TensorArray(tf.float32, n, element_shape=shape)
        parts = self.r.randrange(3)
        inside = self.r.random() < 0.5
        first = self.pick(env, shape)

        def body(i: tf.Tensor, x: tf.Tensor, out: tf.TensorArray) -> list[Any]:
            self.turns *= 8
            own = self.copy(env) if inside else {s: [] for s in SHAPES}
            own[shape] += [x, source.read(i)]
            own[shape][-1].set_shape(shape)
            self.grow(own, parts, depth + 1)
            x = tf.tanh(self.pick(own, shape) - own[shape][-1] * 0.5)
            self.turns //= 8
            return [i + 1, x, out.write(i, x)]

        _, x, out = tf.while_loop(lambda i, *_: i < n, body, [0, first, out])
        x.set_shape(shape)
        stacked = tf.reduce_sum(out.stack(), 0)
        stacked.set_shape(shape)
        return [x, stacked]

    def mapped(self, env: Env, shape: tuple[int, ...], depth: int) -> tf.Tensor:
        n = self.r.choice([1, 4, 30])
        elements = tf.stack([self.pick(env, shape) for _ in range(n)])
        parts = self.r.randrange(3)

        def body(x: tf.Tensor) -> tf.Tensor:
            self.turns *= 30
            own = self.copy(env)
            own[shape].append(x)
            self.grow(own, parts, depth + 1)
            self.turns //= 30
            return tf.sin(self.pick(own, shape)) + x

        got = tf.reduce_mean(tf.map_fn(as_it_is(body), elements), 0)
        got.set_shape(shape)
        return got

    def scanned(self, env: Env, shape: tuple[int, ...], depth: int) -> tf.Tensor:
        n = self.r.choice([1, 4, 9])
        elements = tf.stack([self.pick(env, shape) for _ in range(n)])
        parts = self.r.randrange(3)

        def body(last: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
            self.turns *= 9
            own = self.copy(env)
            own[shape] += [last, x]
            self.grow(own, parts, depth + 1)
            self.turns //= 9
            return tf.tanh(self.pick(own, shape) + last * 0.3)

        scan = tf.scan(as_it_is(body), elements, initializer=self.pick(env, shape))
        return tf.ensure_shape(scan[-1], shape)

    def call(self, env: Env, shape: tuple[int, ...], depth: int) -> tf.Tensor:
        """A function, of which some are not inlined."""
        noinline = self.r.random() < 0.2
        attributes = {"_noinline": True} if noinline else {}
        parts = self.r.randint(1, 4)
        arguments = [self.pick(env, shape), self.pick(env, ())]

        @tf.function(experimental_attributes=attributes, autograph=False)
        def function(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            own: Env = {s: [] for s in SHAPES}
            own[shape].append(x)
            own[()].append(y)
            bounds, flags, ids = self.bounds, self.flags, self.ids
            self.bounds = [tf.cast(tf.abs(y) * 2, tf.int32) % 5]
            self.flags, self.ids = [], []
            v2, self.v2 = self.v2, True
            self.grow(own, parts, depth + 1)
            result = self.pick(own, shape) + x
            self.bounds, self.flags, self.ids, self.v2 = bounds, flags, ids, v2
            return result

        got = function(*arguments)
        got.set_shape(shape)
        return got

    def rows(self, table: Any, ids: tf.Tensor) -> tf.Tensor:
        """Of one table, or of one in parts, of which ids may be too large."""
        if self.r.random() < 0.7:
            return tf.gather(table, ids)
        if self.r.random() < 0.5:
            parts = tf.split(table, self.r.choice([[10, 10], [7, 7, 6], [1, 19]]))
            return tf1.nn.embedding_lookup(parts, ids, partition_strategy="div")
        n = self.r.choice([2, 3])
        parts = [table[part::n] for part in range(n)]
        return tf1.nn.embedding_lookup(parts, ids, partition_strategy="mod")

    def embed(self, env: Env, shape: tuple[int, ...]) -> tf.Tensor:
        """Rows of tables, perhaps concatenated; out of range or of unlike numbers, if so fed."""
        ids = [
            (
                self.r.choice(self.ids)
                if self.ids and self.r.random() < 0.7
                else tf.constant([self.r.randrange(ROWS) for _ in range(3)])
            )
            for _ in range(self.r.randint(1, 4))
        ]
        tables = [self.r.choice(self.tables) for _ in ids]
        rows = [self.rows(table, i) for table, i in zip(tables, ids)]
        if self.r.random() < 0.3:
            constant = np.random.default_rng(self.r.randrange(100))
            table = constant.standard_normal((ROWS, 5)).astype(np.float32)
            rows.append(tf.gather(tf.constant(table), ids[0]))
        if len(rows) > 1 and self.r.random() < 0.3:
            # Another user of one of them.
            env[()].append(tf.reduce_max(rows[0]))
        joined = (
            tf.concat(rows, self.r.choice([1, 1, -1])) if len(rows) > 1 else rows[0]
        )
        flat = tf.concat([tf.reshape(joined, [-1]), tf.zeros([6])], 0)
        return tf.reshape(flat[: int(np.prod(shape))], shape)

    def count(self, env: Env, shape: tuple[int, ...]) -> tf.Tensor:
        """Adds to a variable that only other requests read, so that no order matters."""
        if not self.counters:
            return self.plain(env, shape)
        variable = self.r.choice(self.counters)
        amount = tf.cast(self.r.randint(1, 3), tf.float32)
        added = variable.assign_add(amount, read_value=False)
        with tf.control_dependencies([added] if added is not None else []):
            return tf.identity(self.pick(env, shape))


def build(seed: int, folder: str) -> Case:
    """A graph of TensorFlow 1, one with the control flow of TensorFlow 2, or a SavedModel, which is
    written to a folder."""
    r = random.Random(seed)
    kind = r.choices(["v1", "v2", "saved_model"], [4, 4, 1])[0]
    v2 = kind != "v1"
    (tf1.enable_control_flow_v2 if v2 else tf1.disable_control_flow_v2)()
    builder = Builder(seed, v2)
    builder.case = case = Case(tf.Graph(), kind)
    try:
        if kind == "saved_model":
            saved_model(builder, folder)
        else:
            with case.graph.as_default():
                whole(builder)
    finally:
        tf1.enable_control_flow_v2()
    return case


class Model(tf.Module):
    """Signatures that compute, one that writes and one that reads."""

    def __init__(self, b: Builder) -> None:
        super().__init__()
        rng = np.random.default_rng(b.r.randrange(1000))
        self.tables = [
            tf.Variable(rng.standard_normal((ROWS, 4), dtype=np.float32))
            for _ in range(2)
        ]
        self.counters = [tf.Variable(0.0) for _ in range(2)]
        b.tables, b.counters = self.tables, self.counters
        budget = b.budget
        specs = {
            "x": tf.TensorSpec([], tf.float32),
            "y": tf.TensorSpec([3], tf.float32),
            "z": tf.TensorSpec([2, 3], tf.float32),
            "n": tf.TensorSpec([], tf.int32),
            "flag": tf.TensorSpec([], tf.bool),
            "ids": tf.TensorSpec(None, tf.int64),
        }

        def computing() -> Any:
            def compute(
                x: Any, y: Any, z: Any, n: Any, flag: Any, ids: Any
            ) -> dict[str, tf.Tensor]:
                env: Env = {(): [x], (3,): [y], (2, 3): [z]}
                b.budget, b.bounds, b.flags, b.ids = budget, [n], [flag], [ids]
                b.grow(env, budget, 0)
                return {
                    f"out{i}": env[shape][-1] * 1.0 for i, shape in enumerate(SHAPES)
                }

            return tf.function(compute, autograph=False).get_concrete_function(**specs)

        def write(x: tf.Tensor, ids: tf.Tensor) -> dict[str, tf.Tensor]:
            self.tables[0].assign(tf.zeros_like(self.tables[0]) + x)
            rows = tf.zeros([tf.size(ids), 4]) + x
            self.tables[1].scatter_update(tf.IndexedSlices(rows, tf.reshape(ids, [-1])))
            return {"done": x + 1.0}

        def read() -> dict[str, tf.Tensor]:
            values = self.tables + self.counters
            return {f"value{i}": value.read_value() for i, value in enumerate(values)}

        self.served = {f"compute{i}": computing() for i in range(2)}
        self.served["write"] = tf.function(
            write, autograph=False
        ).get_concrete_function(x=specs["x"], ids=specs["ids"])
        self.served["read"] = tf.function(read, autograph=False).get_concrete_function()


def saved_model(b: Builder, folder: str) -> None:
    case = b.case
    model = Model(b)
    tf.saved_model.save(model, folder, signatures=model.served)
    makers = {
        "x": floats(()),
        "y": floats((3,)),
        "z": floats((2, 3)),
        "n": ints(0, 5),
        "flag": lambda r: np.bool_(r.random() < 0.5),
        "ids": ids_of(tf.int64),
    }
    loader = loader_impl.SavedModelLoader(folder)
    saver, _ = loader.load_graph(case.graph, ["serve"])
    writers = Writers(case.graph)
    definitions = loader.get_meta_graph_def_from_tags(["serve"]).signature_def
    for name in sorted(model.served):
        signature = definitions[name]
        for feed, info in signature.inputs.items():
            case.feeds.append((case.graph.get_tensor_by_name(info.name), makers[feed]))
        fetches = [
            case.graph.get_tensor_by_name(i.name) for i in signature.outputs.values()
        ]
        if name == "write":
            case.writes = [fetches[0].op]
        elif name == "read":
            case.reads = fetches
        elif name.startswith("compute"):
            (case.writing_outputs if writers.of(fetches[0]) else case.outputs).extend(
                fetches
            )

    def initialise(session: Any) -> None:
        loader.restore_variables(session, saver)
        loader.run_init_ops(session, ["serve"])

    case.initialise = initialise


def whole(b: Builder) -> None:
    r, case = b.r, b.case
    env: Env = {shape: [] for shape in SHAPES}

    def placeholder(dtype: tf.DType, shape: Any, make: Any) -> tf.Tensor:
        x = tf1.placeholder(dtype, shape)
        case.feeds.append((x, make))
        return x

    for shape in SHAPES:
        for _ in range(r.randint(1, 2)):
            env[shape].append(placeholder(tf.float32, shape, floats(shape)))
    b.bounds.append(
        placeholder(tf.int32, [], lambda r: np.int32(r.choice([0, 1, 2, 3, 5])))
    )
    b.flags.append(placeholder(tf.bool, [], lambda r: np.bool_(r.random() < 0.5)))
    for dtype in (tf.int32, tf.int64):
        b.ids.append(placeholder(dtype, None, ids_of(dtype)))
    for k in range(3):
        width = r.choice([1, 4, 8])
        value = np.random.default_rng(k).standard_normal((ROWS, width))
        b.tables.append(
            tf1.get_variable(
                f"table{k}",
                initializer=value.astype(np.float32),
                use_resource=r.random() < 0.5,
            )
        )
    for k in range(2):
        b.counters.append(
            tf1.get_variable(f"counter{k}", initializer=0.0, use_resource=True)
        )
    if r.random() < 0.3:
        case.outputs = list(tf.function(lambda: inside(b, env), autograph=False)())
    else:
        b.grow(env, b.budget, 0)
        made = {
            x.name: x for all in env.values() for x in all if x.op.type != "Placeholder"
        }
        case.outputs = list(made.values())
        if r.random() < 0.25:
            add_gradients(b)
    writers = Writers(case.graph)
    case.writing_outputs = [x for x in case.outputs if writers.of(x)]
    case.outputs = [x for x in case.outputs if not writers.of(x)]
    case.inner = [x for x in case.inner if not writers.of(x)]
    add_writes(b)
    if r.random() < 0.15:
        _, case.endless = tf.while_loop(
            lambda i, _: i < 2_000_000_000,
            lambda i, x: (i + 1, tf.sin(x)),
            [b.bounds[0] - b.bounds[0], env[()][0]],
        )
    init = tf1.global_variables_initializer()
    case.initialise = lambda session: session.run(init)


def inside(b: Builder, env: Env) -> list[tf.Tensor]:
    own = b.copy(env)
    b.grow(own, b.budget, 0)
    return [tf.identity(own[shape][-1]) for shape in SHAPES]


def add_gradients(b: Builder) -> None:
    """Those of loops keep what each turn had, on stacks or lists."""
    y = b.r.choice(b.case.outputs)
    xs = [x for x, _ in b.case.feeds if x.dtype == tf.float32]
    try:
        got = tf1.gradients(y, xs)
    except Exception:  # Some operations have none.
        return
    b.case.outputs += [x for x in got if isinstance(x, tf.Tensor)]


def ids_of(dtype: tf.DType) -> Callable[[random.Random], np.ndarray]:
    return lambda r: np.array(
        [r.randrange(ROWS) for _ in range(3)], dtype.as_numpy_dtype
    )


class Writers:
    """Finds out what changes a variable when it is fetched."""

    def __init__(self, graph: tf.Graph) -> None:
        self.functions = {
            f.signature.name: f for f in graph.as_graph_def().library.function
        }
        self.known: dict[str, bool] = {}

    def of_function(self, name: str) -> bool:
        if name not in self.functions:
            return False
        if name not in self.known:
            self.known[name] = False  # Where it calls itself.
            self.known[name] = any(
                self.of_node(node) for node in self.functions[name].node_def
            )
        return self.known[name]

    def of_node(self, node: Any) -> bool:
        called = [node.op]
        for attr in node.attr.values():
            called += [f.name for f in attr.list.func]
            called += [attr.func.name] if attr.HasField("func") else []
        writes = node.op.startswith(("Assign", "ResourceScatter"))
        return writes or any(self.of_function(name) for name in called)

    def of(self, tensor: tf.Tensor) -> bool:
        seen: set[str] = set()
        stack = [tensor.op]
        while stack:
            op = stack.pop()
            if op.name in seen:
                continue
            seen.add(op.name)
            if self.of_node(op.node_def):
                return True
            stack += [x.op for x in op.inputs] + list(op.control_inputs)
        return False


def add_writes(b: Builder) -> None:
    case = b.case
    amount = tf1.placeholder(tf.float32, [])
    row = tf1.placeholder(tf.int32, None)
    case.feeds += [
        (amount, lambda r: np.float32(r.randint(-3, 3))),
        (row, lambda r: np.array([r.randrange(ROWS)], np.int32)),
    ]
    for table in b.tables:
        value = tf.zeros(table.shape) + amount
        made = [table.assign(value, read_value=False)]
        # A reference variable that is updated in another way stays one, and its graph is no program.
        if hasattr(table, "handle"):
            row_of = {"resource": table.handle, "indices": row, "updates": value[:1]}
            made += [
                table.assign_add(value, read_value=False),
                tf.raw_ops.ResourceScatterUpdate(**row_of),
                tf.raw_ops.ResourceScatterAdd(**row_of),
            ]
        case.writes += [op if isinstance(op, tf.Operation) else op.op for op in made]
        case.reads.append(table.read_value())
    case.reads += [counter.read_value() for counter in b.counters]
