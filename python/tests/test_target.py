"""tf.compat.v1.Session("session_group:4") is a group."""

import gc
import re
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import requests_of
import session_group
import tensorflow as tf
from stock import MODELS, Stock, assert_same

tf1 = tf.compat.v1


@pytest.fixture(autouse=True)
def no_other_group() -> Iterator[None]:
    gc.collect()
    assert session_group.describe_all() == []
    yield


@pytest.mark.parametrize(
    "target",
    [
        "session_group://4?kernels=stock",
        "session_group://4?policy=least_loaded&execution=caller&kernels=stock",
    ],
)
def test_answers(target: str) -> None:
    requests = [requests_of.wide_deep(1 + i % 4, seed=i) for i in range(100)]
    with (
        Stock(MODELS / "wide_deep") as stock,
        Stock(MODELS / "wide_deep", target) as group,
    ):
        for request in requests:
            want = stock.call("serving_default", **request)
            assert_same(group.call("serving_default", **request), want)


def test_all_sessions_are_used() -> None:
    with Stock(MODELS / "strings", "session_group://4?policy=round_robin") as group:
        [description] = session_group.describe_all()
        assert len(description["sessions"]) == 4
        before = requests(description["group"])
        for _ in range(40):
            group.call("serving_default", text=["a"])
        after = requests(description["group"])
        assert [b - a for a, b in zip(before, after)] == [10, 10, 10, 10]


def test_how_it_runs_can_be_seen_without_a_handle() -> None:
    with Stock(MODELS / "strings", "session_group:2") as group:
        for _ in range(3):
            group.call("serving_default", text=["a"])
        [explained] = session_group.explain_all()
        # Loading made some, too.
        feeds = ["serving_default_text:0"]
        served = [s for s in explained["signatures"] if s["feeds"] == feeds]
        assert [s["runs_as"] for s in served] == ["program"]
        assert explained["requests"]["ways"]["program"] >= 3
    assert session_group.explain_all() == []


def requests(group: int) -> list[int]:
    """What each session of a group has answered, by the metrics of the process."""
    counts = [0, 0, 0, 0]
    for session, count in re.findall(
        rf'^session_group_requests_total{{group="{group}",session="(\d)",code="OK"}} (\d+)',
        session_group.metrics_text(),
        re.MULTILINE,
    ):
        counts[int(session)] = int(count)
    return counts


def test_options_of_the_target() -> None:
    target = (
        "session_group://2?policy=thread&execution=worker&queue=5&fast_memory=false"
    )
    with tf1.Session(target, graph=tf.Graph()):
        [description] = session_group.describe_all()
        assert description["policy"] == "thread"
        assert description["execution"] == "worker"
        assert description["queue"]["capacity"] == 5
        assert "fast_memory" not in description["optimizations"]


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("session_group://4?policy=nonsense", "nonsense"),
        ("session_group://4?colour=red", "colour"),
        ("session_group:many", "many"),
    ],
)
def test_bad_targets(target: str, wrong: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        tf1.Session(target, graph=tf.Graph())
    assert f'"{wrong}"' in raised.value.message
    assert target in raised.value.message


def test_groups_of_both_kinds() -> None:
    with session_group.load(MODELS / "strings", 3) as model:
        with Stock(MODELS / "strings", "session_group:2"):
            sizes = [len(group["sessions"]) for group in session_group.describe_all()]
            assert sorted(sizes) == [2, 3]
        metrics = session_group.metrics_text()
        number = model.describe()["group"]
        assert f'session_group_in_flight{{group="{number}",session="2"}} 0' in metrics


@pytest.mark.parametrize("target", ["", "session_group:2"])
def test_closing_cancels_what_runs(target: str) -> None:
    with Stock(MODELS / "control_flow", target) as stock:

        def ask() -> None:
            begun.set()
            try:
                stock.call("serving_default", n=2**31 - 1, x=np.zeros(1, np.float32))
            except tf.errors.CancelledError:
                cancelled.set()

        begun, cancelled = threading.Event(), threading.Event()
        request = threading.Thread(target=ask)
        request.start()
        begun.wait()
        time.sleep(0.5)  # Until it is inside the graph.
        stock.session.close()
        request.join()
        assert cancelled.is_set()


def test_other_sessions_stay_what_they_were() -> None:
    with tf.Graph().as_default(), tf1.Session() as session:
        assert session.run(tf.constant(2) + 3) == 5
        assert session_group.describe_all() == []
