"""Sequences of requests to a stock session and a group, whose answers are compared."""

import ctypes
import pathlib
import pickle
import random
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import graphs
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import pywrap_tf_session

tf1 = tf.compat.v1

TARGETS = [
    "session_group:2",
    "session_group:2",
    "session_group://3?policy=thread",
    "session_group://2?execution=worker",
]
REQUESTS = 30
TRIES = 100


@dataclass
class Request:
    """What to ask, by names."""

    what: str
    feeds: dict[str, Any] = field(default_factory=dict)
    fetches: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    timeout_ms: int = 0
    trace: bool = False
    by_callable: bool = False
    writes: bool = False


class Totals:
    """What was done, for the last line of a run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __str__(self) -> str:
        return ", ".join(f"{name}: {n}" for name, n in sorted(self.counts.items()))


Answer = tuple[str, list[Any]]


def run(session: Any, request: Request) -> Answer:
    """The error code's name, or OK and what was fetched. Nothing is checked or converted before."""
    tensor, operation = (
        session.graph.get_tensor_by_name,
        session.graph.get_operation_by_name,
    )
    options = tf1.RunOptions(timeout_in_ms=request.timeout_ms)
    if request.trace:
        options.trace_level = tf1.RunOptions.FULL_TRACE
    buffer = metadata = None
    if request.timeout_ms or request.trace:
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        metadata = pywrap_tf_session.TF_NewBuffer()
    try:
        if request.by_callable:
            return "OK", run_callable(session, request)
        fetched = session._do_run(
            None,
            [operation(name) for name in request.targets],
            [tensor(name) for name in request.fetches],
            {tensor(name).ref(): value for name, value in request.feeds.items()},
            buffer,
            metadata,
        )
        return "OK", [np.asarray(x) for x in fetched]
    except tf.errors.OpError as error:
        return type(error).__name__, [error.message]
    finally:
        if buffer is not None:
            pywrap_tf_session.TF_DeleteBuffer(buffer)
            pywrap_tf_session.TF_DeleteBuffer(metadata)


def run_callable(session: Any, request: Request) -> list[Any]:
    made = session._make_callable_from_options(
        config_pb2.CallableOptions(
            feed=list(request.feeds),
            fetch=request.fetches,
            target=request.targets,
        )
    )
    fetched = made(*[np.asarray(value) for value in request.feeds.values()])
    return [np.asarray(x) for x in fetched]


def same(a: Answer, b: Answer) -> bool:
    if a[0] != b[0] or a[0] != "OK":
        return a[0] == b[0]
    return len(a[1]) == len(b[1]) and all(map(same_bits, a[1], b[1]))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """The payload of a NaN is not looked at."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return a.tobytes() == b.tobytes()
    nan = np.isnan(a)
    return bool((nan == np.isnan(b)).all() and a[~nan].tobytes() == b[~nan].tobytes())


class Requests:
    """Makes requests to a graph."""

    def __init__(self, case: graphs.Case, r: random.Random) -> None:
        self.case, self.r = case, r
        # Few sets of names, so that requests find what earlier ones have left.
        self.signatures = [
            self.some(case.outputs + case.writing_outputs) for _ in range(3)
        ]
        self.pure_ones = [self.some(case.outputs, 3) for _ in range(4)]

    def some(self, tensors: list[tf.Tensor], most: int = 6) -> list[str]:
        if not tensors:
            return []
        return [self.r.choice(tensors).name for _ in range(self.r.randint(1, most))]

    def feeds(self) -> dict[str, Any]:
        items = [(x.name, make(self.r)) for x, make in self.case.feeds]
        self.r.shuffle(items)
        return dict(items)

    def pure(self) -> list[str]:
        return list(self.r.choice(self.pure_ones)) or self.some(self.case.reads, 1)

    def next(self) -> Request:
        return self.r.choices(
            [
                self.plain,
                self.subset,
                self.write,
                self.read,
                self.inside,
                self.bad,
                self.odd,
            ],
            [6, 2, 3, 2, 2, 3, 2],
        )[0]()

    def plain(self) -> Request:
        fetches = list(self.r.choice(self.signatures))
        self.r.shuffle(fetches)
        return Request("plain", self.feeds(), fetches)

    def subset(self) -> Request:
        return Request(
            "subset", self.feeds(), self.some(self.case.outputs) or self.pure()
        )

    def write(self) -> Request:
        target = self.r.choice(self.case.writes).name
        return Request("write", self.feeds(), targets=[target], writes=True)

    def read(self) -> Request:
        return Request("read", fetches=self.some(self.case.reads, 3))

    def inside(self) -> Request:
        """Of what is in a branch that may not run, or in a loop."""
        fetches = self.some(self.case.inner, 2) or self.pure()
        return Request("inside", self.feeds(), fetches + self.pure())

    def bad(self) -> Request:
        """Such as TensorFlow refuses, or fails in the middle."""
        feeds, fetches = self.feeds(), self.pure()
        how = self.r.choice(["range", "number", "dtype", "shape", "missing", "rank"])
        for x, _ in self.case.feeds:
            name = x.name
            if how == "range" and x.dtype.is_integer and feeds[name].ndim:
                feeds[name][self.r.randrange(feeds[name].size)] = self.r.choice(
                    [graphs.ROWS, -1, 2**31 - 1, 1000]
                )
            if how == "number" and x.dtype.is_integer and feeds[name].ndim:
                feeds[name] = feeds[name][: self.r.randrange(len(feeds[name]) + 1)]
            if how == "rank" and x.dtype.is_integer and feeds[name].ndim:
                feeds[name] = feeds[name].reshape([1, -1, 1])
        name = self.r.choice(list(feeds))
        if how == "dtype":
            feeds[name] = feeds[name].astype(
                self.r.choice([np.float64, np.int8, np.bool_])
            )
        elif how == "shape":
            feeds[name] = np.stack([feeds[name], feeds[name]])
        elif how == "missing":
            del feeds[name]
        return Request(f"bad {how}", feeds, fetches)

    def odd(self) -> Request:
        feeds, fetches = self.feeds(), self.pure()
        how = self.r.choice(
            [
                "trace",
                "timeout",
                "endless",
                "callable",
                "feed",
                "twice",
                "target",
                "feed inner",
            ]
        )
        request = Request(f"odd {how}", feeds, fetches)
        if how == "trace":
            request.trace = True
        elif how == "timeout":
            request.timeout_ms = 60_000
        elif how == "endless" and self.case.endless is not None:
            request.timeout_ms, request.fetches = 30, [self.case.endless.name]
        elif how in ("feed", "feed inner"):
            tensors = self.case.inner if how == "feed inner" else self.case.outputs
            for x in self.r.sample(tensors, min(2, len(tensors))):
                if x.dtype == tf.float32 and x.shape.is_fully_defined():
                    value = self.r.uniform(-1, 1)
                    feeds[x.name] = np.full(x.shape.as_list(), value, np.float32)
        elif how == "callable":
            request.by_callable = True
        elif how == "twice":
            request.fetches = fetches * 2
        elif how == "target":
            ops = [x.rsplit(":", 1)[0] for x in self.pure()]
            request.targets = ops + ops[:1]
        return request


def metrics(library: ctypes.CDLL) -> str:
    pointer = ctypes.c_void_p
    new, delete = library.TF_NewBuffer, library.TF_DeleteBuffer
    new_status, delete_status = library.TF_NewStatus, library.TF_DeleteStatus
    new.restype = new_status.restype = pointer
    delete.argtypes = delete_status.argtypes = [pointer]
    library.SessionGroup_AllMetricsText.argtypes = [pointer, pointer]
    buffer, status = new(), new_status()
    library.SessionGroup_AllMetricsText(buffer, status)
    data, length = ctypes.cast(buffer, ctypes.POINTER(pointer * 2)).contents
    text = ctypes.string_at(data, length or 0).decode()
    delete(buffer)
    delete_status(status)
    return text


WAY = re.compile(
    r'^session_group_requests_by_way_total\{.*way="(\w+)"\} (\d+)$', re.MULTILINE
)
NOTE = re.compile(
    r"^session_group_(unresolved|unfused)_total\{.*\} (\d+)$", re.MULTILINE
)


def ways(library: ctypes.CDLL) -> Counter[str]:
    """How requests ran so far, of all groups; empty where the library's metrics don't say."""
    counts: Counter[str] = Counter()
    text = metrics(library)
    for name, count in WAY.findall(text) + NOTE.findall(text):
        counts[name] += int(count)
    return counts


class Difference(Exception):
    pass


def check(
    seed: int, library: ctypes.CDLL, findings: pathlib.Path, totals: Totals
) -> bool:
    """Runs one seed; what differs is printed and saved."""
    with tempfile.TemporaryDirectory() as folder:
        return check_in(folder, seed, library, findings, totals)


def check_in(
    folder: str, seed: int, library: ctypes.CDLL, findings: pathlib.Path, totals: Totals
) -> bool:
    case = graphs.build(seed, folder)
    r = random.Random(seed + 1)
    config = tf1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=2
    )
    target = r.choice(TARGETS)
    done: list[Request] = []
    with (
        tf1.Session("", graph=case.graph, config=config) as stock,
        tf1.Session(target, graph=case.graph, config=config) as group,
    ):
        requests = Requests(case, r)
        try:
            for session in (stock, group):
                case.initialise(session)
            for _ in range(REQUESTS):
                done.append(requests.next())
                compare(stock, group, done[-1], totals)
            check_ways(requests, stock, group, library, done, totals)
        except Difference as difference:
            print(f"seed {seed} ({case.kind}, {target}): {difference}", flush=True)
            save(findings / str(seed), case, done)
            return False
    totals.counts["graphs"] += 1
    return True


def compare(stock: Any, group: Any, request: Request, totals: Totals) -> Answer:
    want, got = run(stock, request), run(group, request)
    totals.counts["requests"] += 1
    totals.counts[f"{request.what} {want[0]}"] += 1
    if same(want, got):
        return want
    if is_stocks_own(stock, group, request):
        totals.counts["stock differs from itself"] += 1
        return want
    raise Difference(f"{request}\nstock: {want}\ngroup: {got}")


def is_stocks_own(stock: Any, group: Any, request: Request) -> bool:
    """Whether a stock session does not give the same each time either."""
    if request.writes:
        return False
    wants = [run(stock, request) for _ in range(8)]
    got = run(group, request)
    return any(same(want, got) for want in wants) and not all(
        same(want, wants[0]) for want in wants
    )


def check_ways(
    requests: Requests,
    stock: Any,
    group: Any,
    library: ctypes.CDLL,
    done: list[Request],
    totals: Totals,
) -> None:
    """After all that, plain requests run as programs, and read and gather in the fast way."""
    plain = [requests.plain() for _ in range(4)]
    for request in plain:
        done.append(request)
        compare(stock, group, request, totals)
    took: Counter[str] = Counter()
    # A variable that was often written in part is read in TensorFlow's way for a while.
    for _ in range(TRIES):
        before = ways(library)
        if {run(group, request)[0] for request in plain} != {"OK"}:
            return
        took = ways(library) - before
        if not set(took) - {"program"} or not requests.case.runs_as_programs:
            totals.counts["at last programs"] += took["program"]
            return
        time.sleep(0.05)
    raise Difference(
        f"plain requests do not all run as programs in the fast way: {dict(took)}"
    )


def save(folder: pathlib.Path, case: graphs.Case, done: list[Request]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.pb").write_bytes(case.graph.as_graph_def().SerializeToString())
    (folder / "requests.pickle").write_bytes(pickle.dumps(done))
