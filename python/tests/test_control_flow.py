"""Branches that run as programs, and answer as in a stock session."""

import tensorflow as tf
from both import both

tf1 = tf.compat.v1


def test_branches_of_different_numbers_on_one_index() -> None:
    def build() -> None:
        index = tf1.placeholder(tf.int32, [], "index")
        x = tf1.placeholder(tf.float32, name="x")
        two = tf.switch_case(index, [lambda: x, lambda: x * 2])
        four = tf.switch_case(
            index, [lambda: x, lambda: x * 3, lambda: x * two, lambda: tf.exp(x)]
        )
        both_ways = tf.switch_case(index, [lambda: two - four, lambda: four - two])
        tf.stack([two, four, both_ways], name="y")

    with both(build) as pair:
        for index in [0, 1, 2, 3, 4, -1]:
            pair.run("y:0", {"index:0": index, "x:0": 1.5})
        assert pair.runs_as("y:0") == "program"
