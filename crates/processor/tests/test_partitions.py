"""Deltas of partitioned variables, which are one tensor for a checkpoint and several variables for the graph."""

import eas
import numpy as np
import pytest
import tensorflow as tf
from conftest import KEYS, VALUES

tf1 = tf.compat.v1
FIRST = np.arange(15, dtype="f4").reshape(5, 3)


def first(shape, dtype=None, partition_info=None):
    """An initialiser."""
    places = zip(partition_info.var_offset, shape)
    return FIRST[tuple(slice(at, at + length) for at, length in places)]


class Partitioned:
    """A model that serves variables of two parts each, floats and strings."""

    def __init__(self, folder, axis, resources):
        self.axis, self.step, self.processor = axis, 1, None
        checkpoints = folder / "checkpoints"
        kind = {
            "use_resource": resources,
            "partitioner": tf1.fixed_size_partitioner(2, axis=axis),
        }
        with tf.Graph().as_default(), tf1.Session() as session:
            floats = tf1.get_variable("v", [5, 3], initializer=first, **kind)
            words = tf1.get_variable(
                "w",
                [5, 3],
                tf.string,
                initializer=tf1.constant_initializer("word"),
                **kind,
            )
            x = tf1.placeholder(tf.float32, [], "x")
            outputs = {
                "v": tf.convert_to_tensor(floats) + x,
                "w": tf.identity(tf.convert_to_tensor(words)),
            }
            session.run(tf1.global_variables_initializer())
            tf1.saved_model.simple_save(
                session, str(folder / "model"), {"x": x}, outputs
            )
            self.deltas = checkpoints / ".incremental_checkpoint"
            self.deltas.mkdir(parents=True)
            tf1.train.Saver().save(session, str(checkpoints / "c"), 1)
        self.config = {
            "savedmodel_dir": str(folder / "model"),
            "checkpoint_dir": str(checkpoints),
            "checkpoint_poll_interval_ms": 50,
        }

    def values(self, name="v"):
        outputs = self.processor.predict({"x": eas.array("FLOAT", 0.0, [])})
        array = outputs[name]
        values = array.string_val if name == "w" else array.float_val
        return np.array(list(values)).reshape(5, 3)

    def part(self, of, number):
        """What of an array is in a part."""
        return np.array_split(of, 2, self.axis)[number]

    def write(self, *tensors):
        """A delta of names and tensors, perhaps with a slice between them."""
        self.step += 1
        full = [one if len(one) == 3 else (one[0], "", one[1]) for one in tensors]
        names, slices, values = zip(*full)
        tf.raw_ops.SaveV2(
            prefix=str(self.deltas / f"d-{self.step}"),
            tensor_names=names,
            shape_and_slices=slices,
            tensors=values,
        )

    def applied(self, *tensors):
        self.write(*tensors)
        self.processor.wait(lambda info: info.model_path.endswith(f"-{self.step}"))

    def refused(self, says, *tensors):
        before = self.values()
        self.write(*tensors)
        info = self.processor.wait(lambda info: f"d-{self.step}:" in info.update_error)
        assert says in info.update_error
        assert (self.values() == before).all()
        for file in self.deltas.glob(f"d-{self.step}.*"):
            file.unlink()


@pytest.fixture(params=[(0, False), (0, True), (1, True)])
def model(request, start, tmp_path):
    model = Partitioned(tmp_path, *request.param)
    model.processor = start(model.config)
    assert (model.values() == FIRST).all()
    return model


def test_whole_tensors_and_rows(model):
    expected = FIRST + 100
    model.applied(("v", expected))
    assert (model.values() == expected).all()
    # Rows in each of the parts, in one, in none.
    for rows in ([4, 0, 2], [0], [4], []):
        new = np.random.default_rng(len(rows)).random([len(rows), 3], "f4")
        keys = np.array(rows, np.int64)
        model.applied((f"v{KEYS}", keys), (f"v{VALUES}", new))
        expected[rows] = new
        assert (model.values() == expected).all()
    words = np.array([[f"{i}{'x' * j}".encode() for j in range(3)] for i in range(5)])
    model.applied(("w", words))
    assert (model.values("w") == words).all()


def test_the_parts_by_their_own_names(model):
    """As a trainer that keeps account of each variable of the graph writes them."""
    expected = FIRST.copy()
    second = model.part(expected, 1)
    second[:] = 50
    model.applied(("v/part_1", second.copy()))
    assert (model.values() == expected).all()
    second[1] = 60
    new = second[1:2].copy()
    model.applied((f"v/part_1{KEYS}", np.array([1])), (f"v/part_1{VALUES}", new))
    assert (model.values() == expected).all()


def test_tensors_in_slices(model):
    """As a Saver of partitioned variables writes them, with other parts than the model's."""
    new = FIRST + 200
    model.applied(
        ("v", "5 3 0,1:-", new[:1]),
        ("v", "5 3 1,4:0,2", new[1:, :2]),
        ("v", "5 3 1,4:2,1", new[1:, 2:]),
    )
    assert (model.values() == new).all()
    words = np.array([[f"{i}-{j}".encode() for j in range(3)] for i in range(5)])
    model.applied(("w", "5 3 0,2:-", words[:2]), ("w", "5 3 2,3:-", words[2:]))
    assert (model.values("w") == words).all()


def test_what_does_not_fit(model):
    refused = model.refused
    refused("v has shape [3, 5] in the delta, and [5, 3]", ("v", FIRST.T.copy()))
    refused("v/part_0 is DT_DOUBLE", ("v", FIRST.astype("f8")))

    def row(name, index, values):
        return (f"{name}{KEYS}", np.array([index])), (f"{name}{VALUES}", values)

    refused("v has 5 rows, and no row 5", *row("v", 5, np.ones([1, 3], "f4")))
    refused("instead of [1, 3]", *row("v", 4, np.ones([1, 2], "f4")))
    first = model.part(FIRST, 0).copy()
    both = *row("v", 0, np.ones([1, 3], "f4")), ("v/part_0", first)
    refused("as a whole and by its parts", *both)
    refused("not all there", ("v", "5 3 0,4:-", FIRST[:4]))
    refused("w is a variable of strings", *row("w", 0, np.array([[b"a"] * 3])))
