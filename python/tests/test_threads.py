"""Many threads, the GIL, closing meanwhile, forking."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests_of
import session_group
import tensorflow as tf
from stock import MODELS, Stock, assert_same

THREADS = 16


@pytest.mark.parametrize("execution", ["caller", "worker"])
def test_many_threads(execution: str) -> None:
    requests = [requests_of.wide_deep(1 + i % 5, seed=i) for i in range(50)]
    with (
        Stock(MODELS / "wide_deep") as stock,
        session_group.load(
            MODELS / "wide_deep", 4, execution=execution, kernels="stock"
        ) as model,
    ):
        want = [stock.call("serving_default", **request) for request in requests]
        together = threading.Barrier(THREADS)

        def ask(thread: int) -> None:
            together.wait()
            for i in range(200):
                i = (i * 7 + thread) % len(requests)
                assert_same(model(**requests[i]), want[i])

        in_threads(ask)
        assert sum(session.runs for session in model.stats()) == THREADS * 200


def test_reading_while_writing() -> None:
    """Large outputs, which share memory, of a variable that is replaced meanwhile."""
    with session_group.load(MODELS / "state", 4) as model:
        assign, read = model.signatures["assign"], model.signatures["read"]

        def work(thread: int) -> None:
            for i in range(100):
                if thread % 4 == 0:
                    x = np.full((64, 1024), thread * 1000 + i, np.float32)
                    assign(x=x, text=[f"{thread} {i} " * 20])
                answer = read()
                assert (answer["rows"] == answer["rows"][0, 0]).all()
                [text] = answer["text"]
                assert text == b"" or text == b" ".join(text.split()[:2] * 20) + b" "

        in_threads(work)


def test_the_gil_is_released() -> None:
    """This thread sees another one inside a call."""
    with session_group.load(MODELS / "control_flow", 1) as model:
        slow = threading.Thread(
            target=lambda: model(n=1_000_000, x=np.zeros(1, np.float32))
        )
        slow.start()
        seen = 0
        while slow.is_alive():
            seen += model.stats()[0].in_flight
        assert seen


def test_close_while_running() -> None:
    for _ in range(10):
        model = session_group.load(MODELS / "wide_deep", 2, kernels="stock")
        request = requests_of.wide_deep(4)
        want = model(**request)
        started = threading.Barrier(THREADS + 1)

        def ask(_: int) -> None:
            started.wait()
            with pytest.raises(tf.errors.FailedPreconditionError, match="closed"):
                while True:
                    assert_same(model(**request), want)

        def close() -> None:
            started.wait()
            model.close()

        closer = threading.Thread(target=close)
        closer.start()
        in_threads(ask)
        closer.join()


@pytest.mark.parametrize("execution", ["caller", "worker", "pool"])
def test_closing_cancels_what_does_not_end(execution: str) -> None:
    model = session_group.load(
        MODELS / "control_flow", 2, execution=execution, drain_timeout_ms=0
    )
    assert model.describe()["drain_timeout_ms"] == 0

    def ask() -> None:
        with pytest.raises(tf.errors.CancelledError):
            model(n=2**31 - 1, x=np.zeros(1, np.float32))
        ended.append(True)

    ended: list[bool] = []
    request = threading.Thread(target=ask)
    request.start()
    while not any(session.in_flight for session in model.stats()):
        pass
    model.close()
    request.join()
    assert ended == [True]
    with pytest.raises(tf.errors.FailedPreconditionError, match="closed"):
        model(n=1, x=np.zeros(1, np.float32))


def test_dropped_while_running() -> None:
    """The last reference to a model may be that of a call."""
    model = session_group.load(MODELS / "control_flow", 1)
    answers = []

    def ask(signature: session_group.Signature) -> None:
        answers.append(signature(n=100_000, x=np.zeros(1, np.float32)))

    threads = [
        threading.Thread(target=ask, args=(model.signatures["serving_default"],))
        for _ in range(4)
    ]
    del model
    for thread in threads:
        thread.start()
    del thread
    while threads:
        threads.pop().join()
    assert len(answers) == 4


def test_signatures_are_prepared_once() -> None:
    model = session_group.load(MODELS / "wide_deep", 2, kernels="stock")
    signature = model.signatures["serving_default"]
    together, found = threading.Barrier(THREADS), []

    def ask(_: int) -> None:
        together.wait()
        signature(**requests_of.wide_deep(1))
        found.append(signature._callable)

    in_threads(ask)
    assert len(set(map(id, found))) == 1


def test_a_forked_child_is_told() -> None:
    model = session_group.load(MODELS / "strings", 2, execution="worker")
    model(text=["a"])

    def child() -> bool:
        with pytest.raises(RuntimeError, match="before this process was forked"):
            model(text=["a"])
        with pytest.raises(RuntimeError, match="before this process was forked"):
            model.close()
        return True

    pid = os.fork()
    if not pid:
        os._exit(0 if child() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    model(text=["a"])


def in_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work, thread) for thread in range(THREADS)]:
            done.result()
