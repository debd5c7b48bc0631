"""Options, descriptions, errors."""

import gc
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests_of
import session_group
import tensorflow as tf
from stock import MODELS

STRINGS = MODELS / "strings"


def test_options() -> None:
    with session_group.load(
        str(STRINGS),
        2,
        tags="serve",
        affinity=False,
        policy="least_loaded",
        execution="worker",
        worker_threads=3,
        queue=7,
        wait_when_full=True,
        drain_timeout_ms=7_000,
        optimizations={"fused_lookups": False, "fast_memory": False},
        config=tf.compat.v1.ConfigProto(intra_op_parallelism_threads=5),
    ) as model:
        description = model.describe()
        assert description["policy"] == "least_loaded"
        assert description["execution"] == "worker"
        assert description["drain_timeout_ms"] == 7_000
        assert description["queue"] == {"capacity": 7, "wait_when_full": True}
        assert sorted(description["optimizations"]) == [
            "interleaved_tables",
            "parallel_restore",
            "resolved_reads",
            "resource_variables",
            "serial_executor",
            "shared_constants",
        ]
        assert len(description["sessions"]) == model.sessions == 2
        for session in description["sessions"]:
            assert session["worker_threads"] == 3
            assert session["intra_op_threads"] == 5
        assert len(model(text=["a b"])["words"]) == 2


def test_a_cpuset_says_how_many_sessions() -> None:
    cpu = min(os.sched_getaffinity(0))
    with session_group.load(STRINGS, cpuset=f"{cpu};{cpu}") as model:
        cpus = [session["cpus"] for session in model.describe()["sessions"]]
        assert cpus == [str(cpu), str(cpu)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, tf.errors.InvalidArgumentError, "session_num is not set"),
        ({"sessions": 0}, tf.errors.InvalidArgumentError, "must be 1 to 1024"),
        (
            {"sessions": 1, "drain_timeout_ms": -1},
            tf.errors.InvalidArgumentError,
            "drain timeout is -1 ms",
        ),
        (
            {"sessions": 1, "drain_timeout_ms": 2**63},
            ValueError,
            "which is no 64-bit number",
        ),
        ({"sessions": 2**32 + 1}, ValueError, "which is no 32-bit number"),
        ({"cpuset": "1-"}, tf.errors.InvalidArgumentError, '"1-"'),
        ({"cpuset": "1\0"}, ValueError, "zero character"),
        ({"sessions": 1, "policy": "x"}, tf.errors.InvalidArgumentError, '"x"'),
        ({"sessions": 1, "execution": "x"}, tf.errors.InvalidArgumentError, '"x"'),
        (
            {"sessions": 1, "optimizations": {"x": True}},
            tf.errors.InvalidArgumentError,
            '"x"',
        ),
        ({"sessions": 1, "tags": ["x"]}, tf.errors.NotFoundError, "x"),
        ({"sessions": 1, "wait_when_full": True}, ValueError, "needs the number"),
    ],
    ids=str,
)
def test_wrong_options(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        session_group.load(STRINGS, **options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (
            ["1/saved_model.pb", "00000010/saved_model.pb", "11/being_copied"],
            "model",
            "{model} has no saved_model.pb; its newest version is {model}/00000010: load that",
        ),
        (
            ["export/a/3/saved_model.pb"],
            "model",
            "{model} has no saved_model.pb; {model}/export/a/3 has it: load that",
        ),
        (
            ["a/1/saved_model.pb", "b/1/saved_model.pb"],
            "model",
            "{model} has no saved_model.pb; {model}/a/1, {model}/b/1 have it: load one of them",
        ),
        (
            [],
            "model",
            "{model} has no saved_model.pb; load the folder that holds it",
        ),
        (["frozen.pb"], "model", "of {model}/frozen.pb: a frozen graph is loaded by"),
        (["frozen.pb"], "model/frozen.pb", "{model}/frozen.pb is a file"),
        (["frozen.pb"], "model/frozen.pb", "with the target session_group:N"),
        (
            ["1/saved_model.pb"],
            "model/1/saved_model.pb",
            "{model}/1/saved_model.pb is a file: load its folder, {model}/1",
        ),
        (["1/saved_model.pb"], "model/2", "{model}/2 does not exist"),
    ],
    ids=str,
)
def test_no_saved_model(
    tmp_path: Path, files: list[str], path: str, message: str
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in files:
        (model / file).parent.mkdir(parents=True, exist_ok=True)
        (model / file).touch()
    with pytest.raises(tf.errors.NotFoundError) as raised:
        session_group.load(tmp_path / path, 1)
    assert message.format(model=model) in raised.value.message


def test_the_folder_of_a_version(tmp_path: Path) -> None:
    for version in (2, 10):
        (tmp_path / str(version)).symlink_to(STRINGS)
    with pytest.raises(tf.errors.NotFoundError) as raised:
        session_group.load(tmp_path, 1)
    [newest] = re.findall(r"newest version is (.+): load", raised.value.message)
    assert newest == f"{tmp_path}/10"
    with session_group.load(newest, 1) as model:
        assert len(model(["a b"])["words"]) == 2


def test_errors_of_the_graph() -> None:
    with session_group.load(MODELS / "lookups", 1) as model:
        request = requests_of.lookups(1)
        request["ids"][:] = 10
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"= 10 is not in \[0, 10\)"
        ):
            model(**request)
        with pytest.raises(tf.errors.InvalidArgumentError, match="no_such_thing"):
            model.run({}, ["no_such_thing:0"])
        assert model(**requests_of.lookups(1))["rows"].shape == (1, 16)


def test_stats() -> None:
    with session_group.load(STRINGS, 2, policy="round_robin") as model:
        for _ in range(5):
            model(text=["a"])
        with pytest.raises(tf.errors.OpError):
            model.run({}, ["PartitionedCall:0"], session=0)
        stats = model.stats()
        codes = tf.compat.v1.errors
        assert [session.session for session in stats] == [0, 1]
        assert [session.answers[codes.OK] for session in stats] == [3, 2]
        assert [session.runs for session in stats] == [4, 2]
        assert [session.ways["program"] for session in stats] == [4, 2]
        assert [sum(session.ways.values()) for session in stats] == [4, 2]
        assert [(s.on_pool, s.unresolved, s.unfused) for s in stats] == [(0, 0, 0)] * 2
        assert sum(stats[0].answers) == 4
        assert stats[0].in_flight == stats[0].queued == stats[0].rejected == 0
        assert 0 < stats[0].busy_ns <= stats[0].latency_sum_ns
        assert 0 < stats[0].latency_p50_ns <= stats[0].latency_max_ns
        assert model.latency_quantile_ns(0, 0.5) == stats[0].latency_p50_ns
        with pytest.raises(tf.errors.InvalidArgumentError):
            model.latency_quantile_ns(0, 2)
        with pytest.raises(tf.errors.OutOfRangeError):
            model.latency_quantile_ns(2, 0.5)
        group = model.describe()["group"]
        line = (
            f'session_group_requests_total{{group="{group}",session="1",code="OK"}} 2'
        )
        assert line in model.metrics_text().splitlines()


def test_explain() -> None:
    kept = {"resource_variables": False}
    with session_group.load(MODELS / "tf1_saved_model", 2, optimizations=kept) as model:
        assert model.explain()["signatures"] == []
        model(word=["a"], n=2)
        trace = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        feeds = {"word:0": ["a"], "n:0": np.int32(2)}
        model.run(feeds, ["y:0"], options=trace)
        explained = model.explain()
        [signature] = explained["signatures"]
        assert (signature["feeds"], signature["fetches"]) == (
            ["n:0", "word:0"],
            ["y:0"],
        )
        assert signature["runs_as"] == "names"
        assert signature["why"] == "a ref variable (node weights)"
        assert "use_resource=True" in signature["advice"]
        ways = explained["requests"]["ways"]
        assert {way: n for way, n in ways.items() if n} == {
            "no_program": 1,
            "run_options": 1,
        }
        summed = {way: sum(s.ways[way] for s in model.stats()) for way in ways}
        assert summed == ways
        line = 'session="0",way="no_program"} 1'
        assert line in model.metrics_text()
        assert session_group.explain_all() == [explained]


def test_random_numbers_without_a_seed_are_no_state() -> None:
    with session_group.load(MODELS / "noisy", 2) as model:
        drawn = [model.signatures["unseeded"](x=np.zeros(8))["y"] for _ in range(4)]
        assert len({y.tobytes() for y in drawn}) == 4
        [signature] = model.explain()["signatures"]
        assert signature["runs_as"] == "program"


def test_memory_stats() -> None:
    with session_group.load(MODELS / "convolutions", 1) as model:
        for _ in range(4):
            model(image=np.zeros([1, 128, 128, 3], np.float32))
        stats = session_group.memory_stats()
        assert stats.hits > stats.misses > 0
        assert 2**20 < stats.kept_bytes <= stats.kept_limit_bytes
        assert "session_group_large_tensors_hits_total " in model.metrics_text()
    assert session_group.memory_stats().kept_bytes == 0


def test_closed() -> None:
    with session_group.load(STRINGS, 1) as model:
        signature = model.signatures["serving_default"]
        signature(text=["a"])
    for call in (
        lambda: model(text=["a"]),
        lambda: signature(text=["a"]),
        lambda: model.warm_up(text=["a"]),
        lambda: model.run({"serving_default_text:0": ["a"]}, ["PartitionedCall:0"]),
    ):
        with pytest.raises(tf.errors.FailedPreconditionError, match="closed"):
            call()
    model.close()
    assert model.describe()["closed"] is True
    assert model.stats()[0].runs >= 1


def test_signatures_keep_the_model() -> None:
    signature = session_group.load(STRINGS, 1).signatures["serving_default"]
    gc.collect()
    assert len(signature(text=["a b"])["words"]) == 2


def test_models_are_freed_when_nobody_refers_to_them() -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    gc.collect()
    before = threads()
    model = session_group.load(STRINGS, 8, execution="worker")
    model(text=["a"])
    assert threads() >= before + 8
    del model
    assert threads() < before + 8
