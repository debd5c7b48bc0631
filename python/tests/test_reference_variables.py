"""Graphs with TensorFlow 1's reference variables do what they do in a stock session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from both import TARGET, Both, both

tf1 = tf.compat.v1

KEPT = TARGET + "&resource_variables=0"


def variable(name: str, value: Any, **options: Any) -> Any:
    return tf1.Variable(value, name=name, use_resource=False, **options)


def initialise(pair: Both) -> None:
    pair.run(tf1.global_variables_initializer())


@pytest.mark.parametrize("strategy", ["mod", "div"])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_partitioned_embeddings(strategy: str, parts: int) -> None:
    def build() -> None:
        table = tf1.get_variable(
            "table",
            shape=[103, 8],
            initializer=tf1.random_uniform_initializer(seed=1),
            partitioner=tf1.fixed_size_partitioner(parts),
            use_resource=False,
        )
        ids = tf1.placeholder(tf.int64, [None, 3], "ids")
        found = tf.nn.embedding_lookup(list(table), ids)
        if strategy == "mod":
            found = tf1.nn.embedding_lookup(list(table), ids, partition_strategy="mod")
        tf.reduce_sum(found, -1, name="y")
        sparse = tf1.sparse_placeholder(tf.int64, [None, None], "sparse")
        tf1.nn.safe_embedding_lookup_sparse(
            list(table), sparse, partition_strategy=strategy, combiner="sqrtn", name="z"
        )

    with both(build) as pair:
        initialise(pair)
        # One more than are looked up at once, and none.
        for batch in [1, 7, 22, 0]:
            ids = np.random.default_rng(batch).integers(0, 103, (batch, 3))
            pair.run("y:0", {"ids:0": ids})
        for wrong in [103, 10**12, -1, -(2**63), 2**63 - 1]:
            fed = {"ids:0": [[5, wrong, 2]]}
            assert isinstance(pair.run("y:0", fed), type) or strategy == "mod"
        assert pair.runs_as("y:0") == "program"
        assert pair.explained("y:0")["fused_lookups"] == parts
        sparse = tf1.SparseTensorValue([[0, 0], [0, 2], [2, 1]], [5, 102, 0], [4, 3])
        feeds = dict(
            zip(["sparse/indices:0", "sparse/values:0", "sparse/shape:0"], sparse)
        )
        names = [
            op.name for op in pair.graph.get_operations() if op.name.startswith("z")
        ]
        pair.run(names[-1] + ":0", feeds)
        assert pair.runs_as(names[-1] + ":0") == "program"


def one_variable() -> None:
    v = variable("v", np.array([1, 2, 3], np.float32))
    x = tf1.placeholder(tf.float32, name="x")
    tf.multiply(v, 10, name="y")
    tf1.assign(v, x, name="assign")
    tf.raw_ops.IsVariableInitialized(ref=v._ref(), name="is_initialized")


def test_old_names_give_what_they_gave() -> None:
    with both(one_variable) as pair:
        assert pair.run("is_initialized:0") is not None
        assert pair.run("y:0") is tf.errors.FailedPreconditionError
        initialise(pair)
        pair.run(["is_initialized:0", "v:0", "v/read:0", "y:0"])
        assert pair.runs_as("y:0") == "program"
        for name in ["v:0", "v/read:0"]:
            pair.run(["y:0", name], {name: [4, 5, 6]})
        for write, fed in [("assign:0", {"x:0": [7, 8, 9]}), ("v/Assign:0", {})]:
            pair.run(write, fed)
            # By each session.
            assert [pair.run(["y:0", "v:0"]) for _ in range(2)]
        for wrong in [[1, 2], [[1, 2, 3]], 1]:
            assert isinstance(pair.run("assign:0", {"x:0": wrong}), type)
        pair.run(["y:0", "v:0"])


def test_the_optimisation_can_be_switched_off() -> None:
    with both(one_variable, KEPT) as pair:
        initialise(pair)
        pair.run("y:0")
        assert pair.runs_as("y:0") == "names"


def test_another_shape() -> None:
    def build() -> None:
        x = tf1.placeholder(tf.float32, name="x")
        for name, options in {"v": {}, "w": {"validate_shape": False}}.items():
            v = variable(name, np.array([1, 2], np.float32), **options)
            tf1.assign(v, x, validate_shape=False, name=name + "_any")
            tf1.assign(v, x, name=name + "_same")

    with both(build) as pair:
        initialise(pair)
        for name in ["v", "w"]:
            for write, value in [
                ("_any", [1, 2, 3]),
                ("_same", [1, 2]),
                ("_same", [3, 2, 1]),
                ("_any", [[1]]),
                ("_same", [[2]]),
            ]:
                pair.run(f"{name}{write}:0", {"x:0": value})
                pair.run(f"{name}:0")


@pytest.mark.parametrize(
    "scatter", "Add Sub Mul Div Min Max Update NdAdd NdSub NdUpdate".split()
)
def test_scattering(scatter: str) -> None:
    def build() -> None:
        v = variable("v", np.arange(12, dtype=np.float32).reshape(6, 2))
        ids = tf1.placeholder(tf.int32, name="ids")
        x = tf1.placeholder(tf.float32, name="x")
        operation = getattr(tf.raw_ops, f"Scatter{scatter}")
        operation(ref=v._ref(), indices=ids, updates=x, name="write")
        tf.identity(v, "y")

    with both(build) as pair:
        initialise(pair)
        ids = [[4], [1]] if scatter.startswith("Nd") else [4, 1]
        pair.run("write:0", {"ids:0": ids, "x:0": [[1, 2], [3, 5]]})
        for _ in range(2):
            pair.run("y:0")
        assert isinstance(pair.run("write:0", {"ids:0": [[9]], "x:0": [[1, 2]]}), type)
        pair.run("y:0")


def test_reads_after_a_write_of_the_same_request_see_it() -> None:
    def build() -> None:
        v = variable("v", np.array([[1, 2], [3, 4]], np.float32))
        x = tf1.placeholder(tf.float32, name="x")
        written = tf1.assign(v, x, name="assign")
        again = tf1.assign_add(written, [[1, 1], [1, 1]], name="again")
        with tf.control_dependencies([written]):
            tf.identity(v.read_value(), "after")
            tf.gather(v.read_value(), [1], name="rows")
        with tf.control_dependencies([again]):
            tf.add(v.read_value(), 100, name="last")
        with tf.control_dependencies([again]):
            tf.identity(written, "of_the_first")
        # A reference that is read by an operation that waits for the write by another input.
        tf1.raw_ops.AddV2(x=again, y=v._ref(), name="by_data")

    with both(build) as pair:
        initialise(pair)
        for number, fetch in enumerate(
            ["assign", "after", "rows", "again", "last", "of_the_first", "by_data"]
        ):
            value = np.full((2, 2), number, np.float32)
            pair.run(fetch + ":0", {"x:0": value})
            for _ in range(2):
                pair.run("v:0")


def test_branches_that_read_and_write() -> None:
    def build() -> None:
        v = variable("v", np.array([1, 2], np.float32))
        w = variable("w", v.initialized_value() * 2)
        which = tf1.placeholder(tf.bool, name="which")
        tf1.cond(
            which, lambda: tf1.assign_add(v, [1, 1]), lambda: tf1.assign_sub(w, [5, 5])
        )
        value = tf1.cond(which, lambda: v.read_value() + 1, lambda: w.read_value() * 2)
        tf.identity(value, "y")

    tf1.disable_control_flow_v2()
    try:
        with both(build) as pair:
            for name in ["w", "v", "w"]:
                pair.run(f"{name}/Assign:0")
            for which in [True, False, True]:
                pair.run("cond/Merge:0", {"which:0": which})
                pair.run("y:0", {"which:0": which})
                pair.run(["v:0", "w:0"])
    finally:
        tf1.enable_control_flow_v2()


def test_a_graph_that_grows() -> None:
    with both(one_variable) as pair:
        initialise(pair)
        pair.run("y:0")
        [v] = tf1.global_variables()
        x = pair.graph.get_tensor_by_name("x:0")
        tf1.assign(v, x * 2, name="new_assign")
        tf.add(v._ref(), 1, name="new_read")
        variable("w", np.array([5], np.float32))
        pair.run("w/Assign")
        pair.run("new_assign:0", {"x:0": [1, 2, 3]})
        for fetch in ["new_read", "w", "y", "v"]:
            for _ in range(2):
                pair.run(fetch + ":0")
            pair.run(fetch + ":0", {"v:0": [7, 7, 7]})
        assert pair.runs_as("w:0") == "program"


def scatter(v: Any) -> None:
    tf1.scatter_add(v, [1], [100.0], name="new")


def read_after_a_write(v: Any) -> None:
    with tf.control_dependencies([v.graph.get_operation_by_name("v/Assign")]):
        tf.add(v._ref(), 1, name="new")


def write_what_was_written(v: Any) -> None:
    written = v.graph.get_tensor_by_name("v/Assign:0")
    tf1.raw_ops.Assign(ref=written, value=np.array([3, 3, 3], np.float32), name="new")


def share_memory(v: Any) -> None:
    tf1.raw_ops.VariableV2(shape=[3], dtype=tf.float32, shared_name="v", name="new")


@pytest.mark.parametrize(
    "grow", [scatter, read_after_a_write, write_what_was_written, share_memory]
)
def test_a_graph_that_grows_by_what_needs_a_reference(
    grow: Callable[[Any], None],
) -> None:
    with both(one_variable) as pair:
        initialise(pair)
        pair.run("v:0")
        [v] = tf1.global_variables()
        grow(v)
        with pytest.raises(
            tf.errors.UnimplementedError, match="resource_variables"
        ) as e:
            pair.group.run("new:0")
        assert "variable v " in str(e.value)
    # And what then helps.
    with both(one_variable, KEPT) as pair:
        initialise(pair)
        [v] = tf1.global_variables()
        grow(v)
        pair.run("new:0")


def test_what_needs_a_reference_keeps_it() -> None:
    def build() -> None:
        v = variable("v", np.array([1, 2], np.float32))
        other = variable("other", np.array([3], np.float32))
        tf.identity(other, "z")
        loss = tf.reduce_sum(v * v)
        tf1.train.GradientDescentOptimizer(0.1).minimize(
            loss, name="train", var_list=[v]
        )
        tf.identity(v, "y")

    with both(build) as pair:
        initialise(pair)
        for _ in range(3):
            pair.run("train")
            pair.run(["y:0"])
            pair.run(["z:0"])
        assert pair.runs_as("y:0") == "names"
        assert pair.runs_as("z:0") == "program"


def test_saving_and_restoring(tmp_path: Path) -> None:
    def build() -> None:
        one_variable()
        tf1.train.Saver()

    with both(build) as pair:
        initialise(pair)
        pair.run("assign:0", {"x:0": [4, 5, 6]})
        path = {"save/Const:0": str(tmp_path / "saved")}
        assert pair.group.run("save/control_dependency:0", path) is not None
        pair.run("assign:0", {"x:0": [7, 8, 9]})
        pair.run("save/restore_all", path)
        for _ in range(2):
            pair.run("v:0")


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("option", ["", "&fused_lookups=0"])
def test_lookups_in_parts_of_any_kind(dtype: tf.DType, option: str) -> None:
    def build() -> None:
        rng = np.random.default_rng(1)
        ids = tf1.placeholder(dtype, None, "ids")
        values = [rng.standard_normal((n, 2, 3), np.float32) for n in (4, 4, 3)]
        parts = [variable(f"part{i}", value) for i, value in enumerate(values)]
        numbers = [tf.constant(rng.integers(0, 99, n)) for n in (6, 5)]
        lookup = tf1.nn.embedding_lookup
        y = lookup(parts, ids, partition_strategy="div", name="y")
        tf.reduce_sum(y, -1, name="sum")
        lookup(numbers, ids, partition_strategy="mod", name="numbers")
        # No copies of rows.
        lookup(parts, ids, partition_strategy="div", max_norm=0.5, name="scaled")
        # The same ids, and another user of what they become.
        tf.add(tf.math.floormod(tf.reshape(ids, [-1]), 2), 1, name="remainder")

    with both(build, TARGET + option) as pair:
        initialise(pair)
        fetches = ["y:0", "sum:0", "numbers:0", "scaled:0", "remainder:0"]
        for ids in [[3], [0, 10, 4], [], [[1, 2], [9, 8]], 7, list(range(11)) * 13]:
            fed = {"ids:0": ids}
            pair.run(fetches, fed)
            for fetch in fetches:
                pair.run(fetch, fed)
        for wrong in [[11], [-1], [2**31 - 1], [-(2**31)]]:
            for fetch in fetches:
                pair.run(fetch, {"ids:0": wrong})
        fused = pair.explained("sum:0")["fused_lookups"]
        assert fused == (0 if option else 3)


@pytest.mark.parametrize("n", [1, 4, 15, 64, 1000, 100_000])
def test_what_was_fed_to_an_assignment_may_change(n: int) -> None:
    def build() -> None:
        variable("v", np.zeros(n, np.float32))
        x = tf1.placeholder(tf.float32, name="x")
        tf1.assign(tf1.global_variables()[0], x, name="assign")

    with both(build) as pair:
        initialise(pair)
        for fetch, fed in [("assign", "x"), ("v/Assign", "v/initial_value")]:
            values = np.ones(n, np.float32)
            pair.run(pair.graph.get_operation_by_name(fetch), {fed + ":0": values})
            values[:] = 7
            for _ in range(2):
                pair.run("v:0")


@pytest.mark.parametrize(
    "dtype",
    [
        tf.bool,
        tf.int8,
        tf.uint16,
        tf.int64,
        tf.half,
        tf.bfloat16,
        tf.complex64,
        tf.string,
    ],
)
def test_types(dtype: tf.DType) -> None:
    def build() -> None:
        value = (
            tf.constant(["a", "b"]) if dtype == tf.string else tf.cast([1, 0], tf.int8)
        )
        value = (
            tf.bitcast(value, dtype) if dtype.is_quantized else tf.cast(value, dtype)
        )
        v = tf.raw_ops.VariableV2(shape=[2], dtype=dtype, name="v")
        tf.raw_ops.Assign(ref=v, value=value, name="assign")
        tf.identity(tf.bitcast(v, tf.int8) if dtype.is_quantized else v, "y")

    with both(build) as pair:
        assert pair.run("y:0") is tf.errors.FailedPreconditionError
        pair.run(pair.graph.get_operation_by_name("assign"))
        pair.run("y:0")
        stays = dtype == tf.string or dtype.is_quantized
        assert pair.runs_as("y:0") == ("names" if stays else "program")


def test_variables_that_stay_what_they_are() -> None:
    def build() -> None:
        with tf.control_dependencies([tf.no_op("before")]):
            waits = variable("waits", np.float32(1))
        raw = tf.raw_ops
        parts = {
            "empty": raw.VariableV2(shape=[0, 3], dtype=tf.float32),
            "one": raw.VariableV2(shape=[], dtype=tf.float32, shared_name="shared"),
            "other": raw.VariableV2(shape=[], dtype=tf.float32, shared_name="shared"),
            "taken": raw.VariableV2(shape=[], dtype=tf.float32, name="taken"),
        }
        tf.no_op("taken/session_group_handle")
        for name in ["one", "taken"]:
            raw.Assign(ref=parts[name], value=2.0, name=f"write_{name}")
        parts["waits"] = waits._ref()
        for name, part in parts.items():
            tf.identity(part, f"read_{name}")
        # Another variable of another kind, with the name of one.
        awaited = variable("awaited", np.float32(1))
        with tf.control_dependencies([awaited.op]):
            tf.identity(2.0, "after_awaited")
        handle = raw.VarHandleOp(dtype=tf.float32, shape=[], shared_name="taken")
        raw.VarIsInitializedOp(resource=handle, name="is_initialized")

    with both(build) as pair:
        pair.run("read_empty:0")
        pair.run("after_awaited:0")
        pair.run(["write_one:0", "write_taken:0", "waits/Assign:0"])
        for name in ["one", "other", "taken", "waits"]:
            pair.run(f"read_{name}:0")
        assert pair.run("is_initialized:0") == np.False_


def test_arithmetic_of_ids_by_hand() -> None:
    def lookup(name: str, ids: Any, partition: Any, width: int) -> None:
        tables = [
            tf.reshape(tf.range(6.0 * width) + 100.0 * i, [6, width]) for i in range(2)
        ]
        places = tf.dynamic_partition(tf.range(tf.size(ids)), partition, 2)
        rows = tf.dynamic_partition(ids // 3, partition, 2)
        found = [tf.gather(table, row) for table, row in zip(tables, rows)]
        tf.dynamic_stitch(places, found, name=name)

    def build() -> None:
        ids = tf1.placeholder(tf.int32, None, "ids")
        third = ids // 3
        # What is used twice, and where it comes from, too.
        lookup("shared", ids, tf.minimum(tf.maximum(third, ids // 5), 1), 3)
        lookup("chosen", ids, tf.where(third > 1, 0 * ids, 0 * ids + 1), 3)
        lookup("vectors", ids, tf.minimum(ids % tf.constant([2]), 1), 3)
        lookup("narrow", ids, ids % 2, 1)
        lookup("wide", ids, ids % 2, 2)
        lookup("empty", ids, ids % 2, 0)
        chosen = tf.raw_ops.Select(condition=ids > 3, x=1, y=0)
        lookup("selected", ids, chosen, 3)

    with both(build) as pair:
        for ids in [[5], [5, 0, 11, 3], [], 5, [[1, 2]], [-1], [2**31 - 1]]:
            for name in [
                "shared",
                "chosen",
                "vectors",
                "narrow",
                "wide",
                "empty",
                "selected",
            ]:
                pair.run(name + ":0", {"ids:0": ids})
        assert pair.explained("shared:0")["fused_lookups"] == 2
        assert pair.explained("vectors:0")["steps"] > pair.explained("wide:0")["steps"]
