"""The same requests to a stock session and to a group, which must answer alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import session_group
import tensorflow as tf
from stock import assert_same

tf1 = tf.compat.v1

TARGET = "session_group://2?kernels=stock&policy=round_robin"


class Both:
    """A stock session and a group with the same graph, which may grow."""

    def __init__(self, target: str) -> None:
        self.graph = tf1.get_default_graph()
        self.stock = tf1.Session(graph=self.graph)
        self.group = tf1.Session(target, graph=self.graph)

    def run(self, fetches: Any, feeds: Any = None) -> Any:
        """What both give; an error of a kind if both have it."""
        results = [
            outcome(session, fetches, feeds) for session in (self.stock, self.group)
        ]
        assert_alike(results[1], results[0])
        return results[0]

    def explained(self, fetch: str) -> dict[str, Any]:
        [group] = session_group.explain_all()
        return next(s for s in group["signatures"] if s["fetches"] == [fetch])

    def runs_as(self, fetch: str) -> str:
        return str(self.explained(fetch)["runs_as"])


def outcome(session: Any, fetches: Any, feeds: Any) -> Any:
    try:
        return session.run(fetches, feeds)
    except tf.errors.OpError as error:
        return type(error)


def assert_alike(got: Any, want: Any) -> None:
    if got is None or isinstance(got, type) or isinstance(want, type):
        assert got is want
    elif isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want):
            assert_alike(one, other)
    else:
        assert_same(np.asarray(got), np.asarray(want))


@contextmanager
def both(build: Callable[[], Any], target: str = TARGET) -> Iterator[Both]:
    with tf.Graph().as_default():
        build()
        pair = Both(target)
        try:
            yield pair
        finally:
            pair.stock.close()
            pair.group.close()
