"""Models: a group of sessions that serves a SavedModel."""

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from ._group import Group
from ._input import typed_array, untyped_array
from ._library import lib
from ._meta_graph import signature_defs
from ._output import tensor_types
from ._routes import Routes, are_same, tensor_name
from ._signature import Signature, Signatures
from ._stats import SessionStats, session_stats
from ._status import Buffer, Status, c_int32, c_int64, c_string, c_strings, text
from ._tensor import Array, Tensors
from ._tensorflow import tf

# Signatures that TensorFlow keeps for itself.
_INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")


class Model:
    """N sessions that share the variables and tables of a SavedModel; made by `load`.

    Any number of threads may use a model. It frees what it holds when it is closed, by `close`, by the
    end of a `with`, or since nobody refers to it any more.
    """

    def __init__(self, group: Group, signatures: Mapping[str, Any]) -> None:
        self._group = group
        self.signatures = Signatures(
            Signature(group, name, definition)
            for name, definition in signatures.items()
            if name not in _INTERNAL
        )
        """The model's signatures by name."""
        self._types = {
            tensor: dtype
            for definition in signatures.values()
            for info in definition.inputs.values()
            for tensor, dtype in tensor_types(info)
        }

    def __call__(self, /, *positional: Any, **inputs: Any) -> dict[str, Any]:
        """Calls the default signature: "serving_default", or the only one."""
        return self._default_signature()(*positional, **inputs)

    def warm_up(self, /, *positional: Any, **inputs: Any) -> None:
        """Runs the default signature once on each session; see `Signature.warm_up`."""
        self._default_signature().warm_up(*positional, **inputs)

    def run(
        self,
        feeds: Mapping[str, Any],
        fetches: Sequence[str],
        targets: Sequence[str] = (),
        session: int | None = None,
        *,
        options: "tf.compat.v1.RunOptions | None" = None,
    ) -> list[Array]:
        """Runs the graph by names of tensors and operations, as `tf.compat.v1.Session.run` does.

        What is fed to an input of a signature is converted as when the signature is called. An array for
        another tensor must have the tensor's type; Python's own values become what `tf.constant` makes of
        them. A fetch that is fed is what was fed. `targets` are operations to run without fetching
        anything. `session` is the number of the session that shall run it, modulo that of sessions; else
        the policy chooses.

        Example:

            >>> [words] = model.run({"serving_default_text:0": ["a b a"]}, ["PartitionedCall:1"])
            >>> words
            array([b'<a>', b'<b>'], dtype=object)
        """
        for name, value in (("fetches", fetches), ("targets", targets)):
            if isinstance(value, str):
                raise TypeError(f"{name} is a str, needs a sequence: [{value!r}]")
        if session is None:
            session = -1
        elif c_int32("session", session) < 0:
            raise ValueError(f"session is {session}: sessions have numbers from 0 on")
        arrays = [self._fed(name, value) for name, value in feeds.items()]
        names = list(feeds)
        routes = Routes(names, fetches)
        for one, other in routes.repeated:
            (array, dtype), (same, same_dtype) = arrays[one], arrays[other]
            if dtype != same_dtype or not are_same(array, same, dtype):
                raise ValueError(
                    f"feeds {names[one]!r} and {names[other]!r} are the same tensor, and need the same value"
                )
        with (
            Tensors(len(routes.feeds)) as inputs,
            Tensors(len(routes.fetches)) as outputs,
        ):
            # Where all that is fetched is fed, there is nothing to run.
            if routes.fetches or targets or not fetches:
                for i, number in enumerate(routes.feeds):
                    inputs.put(i, *arrays[number])
                status = Status()
                run_options = (
                    None if options is None else Buffer(options.SerializeToString())
                )
                lib.SessionGroup_RunOn(
                    self._group.pointer,
                    session,
                    run_options and run_options.handle,
                    c_strings([names[number] for number in routes.feeds]),
                    inputs.array,
                    len(routes.feeds),
                    c_strings(routes.fetches),
                    outputs.array,
                    len(routes.fetches),
                    c_strings(targets),
                    len(targets),
                    None,
                    status.handle,
                )
                status.check()
            fetched = [outputs.take(i) for i in range(len(routes.fetches))]
            return routes.results(fetched, arrays)

    @property
    def sessions(self) -> int:
        """How many sessions the model has."""
        sessions: int = lib.SessionGroup_SessionNum(self._group.pointer)
        return sessions

    def describe(self) -> dict[str, Any]:
        """What the group is, and why: SessionGroup_Describe of the C header says what is in it."""
        description: dict[str, Any] = json.loads(
            text(lib.SessionGroup_Describe, self._group.pointer)
        )
        return description

    def explain(self) -> dict[str, Any]:
        """What is prepared for requests, how it runs and why so; SessionGroup_Explain of the C header says
        what is in it.

        Example:

            >>> answer = model(text=["to be or not to be"])
            >>> [signature] = model.explain()["signatures"]
            >>> signature["fetches"], signature["runs_as"], signature["why"]
            (['PartitionedCall:0', 'PartitionedCall:1'], 'program', None)
        """
        explained: dict[str, Any] = json.loads(
            text(lib.SessionGroup_Explain, self._group.pointer)
        )
        return explained

    def stats(self) -> list[SessionStats]:
        """What each session has done."""
        return [session_stats(self._group, i) for i in range(self.sessions)]

    def latency_quantile_ns(self, session: int, quantile: float) -> int:
        """The latency that a share of 0 to 1 of a session's requests did not exceed, to 1/64."""
        status = Status()
        latency: int = lib.SessionGroup_LatencyQuantile(
            self._group.pointer, c_int32("session", session), quantile, status.handle
        )
        status.check()
        return latency

    def metrics_text(self) -> str:
        """What all sessions have done, for Prometheus, in the text format 0.0.4."""
        return text(lib.SessionGroup_MetricsText, self._group.pointer)

    def close(self) -> None:
        """Frees sessions, threads, variables and tables.

        Requests that are running may finish first, as long as `drain_timeout_ms` of `load` says; then
        they fail with `tf.errors.CancelledError`. Raises `tf.errors.DeadlineExceededError` where some run
        on for five seconds after that: close the model again once they have ended. Later requests fail
        with `tf.errors.FailedPreconditionError`. Closing twice is allowed.
        """
        self._group.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Model of {self.sessions} sessions: {list(self.signatures.values())}>"

    def _fed(self, name: str, value: object) -> tuple[Array, int]:
        dtype = self._types.get(tensor_name(name))
        if dtype is None:
            return untyped_array(f"feed {name!r}", value)
        return typed_array(f"feed {name!r}", value, dtype), dtype

    def _default_signature(self) -> Signature:
        if "serving_default" in self.signatures:
            return self.signatures["serving_default"]
        if len(self.signatures) == 1:
            return next(iter(self.signatures.values()))
        names = ", ".join(map(repr, self.signatures)) or "none"
        raise TypeError(
            f"the model has no default signature: call one of its signatures: {names}"
        )


def load(
    export_dir: str | os.PathLike[str],
    sessions: int | None = None,
    *,
    tags: Sequence[str] = ("serve",),
    cpuset: str | None = None,
    affinity: bool | None = None,
    policy: str | None = None,
    execution: str | None = None,
    kernels: str | None = None,
    worker_threads: int | None = None,
    queue: int | None = None,
    wait_when_full: bool = False,
    drain_timeout_ms: int | None = None,
    optimizations: Mapping[str, bool] | None = None,
    multi_stream: bool = False,
    gpu_ids: Sequence[int] = (),
    config: "tf.compat.v1.ConfigProto | None" = None,
) -> Model:
    """Loads a SavedModel into a group of sessions, ready to serve.

    What is not given is left to the environment, and then to defaults. SessionGroupOptions of the C
    header say more about each.

    Args:
      export_dir: the folder with saved_model.pb; where a model has versions, that of one of them.
      sessions: how many; may be left out where a cpuset says it.
      tags: exactly those of the MetaGraphDef to load.
      cpuset: CPUs for each session: "0-1;2-3".
      affinity: gives each session cores of its own, found by themselves.
      policy: which session a request goes to: "auto", "round_robin", "thread", "least_loaded",
        "cpu_local".
      execution: where it runs: "caller", "worker", "pool", "auto".
      kernels: "auto" measures for each operation and size whether oneDNN's kernel or
        TensorFlow's own is faster; "stock" takes those of a session in this process.
      worker_threads: of each session, for the execution "worker".
      queue: how many requests may wait for a session's worker threads.
      wait_when_full: with `queue`, whether one more waits or fails at once.
      drain_timeout_ms: how long `Model.close` lets requests that are running finish before it cancels them;
        30,000 by default.
      optimizations: switches some on or off, as {"fused_lookups": False}.
      multi_stream: gives each session a stream of its own on a GPU; `sessions` is then the number on
        each GPU.
      gpu_ids: which GPUs, by TensorFlow's numbers; all by default.
      config: of each session.

    Example:

        >>> model = session_group.load(export_dir, 2, policy="least_loaded")
        >>> model(text=["to be or not to be"])["count"]
        array([2, 2, 1, 1], dtype=int32)
    """
    tags = (tags,) if isinstance(tags, str) else tags
    status = Status()
    with ExitStack() as stack:
        session_options = lib.TF_NewSessionOptions()
        stack.callback(lib.TF_DeleteSessionOptions, session_options)
        if config is not None:
            data = config.SerializeToString()
            lib.TF_SetConfig(session_options, data, len(data), status.handle)
            status.check()

        options = lib.NewSessionGroupOptions()
        stack.callback(lib.SessionGroupOptions_Delete, options)
        if sessions is not None:
            number = c_int32("sessions", sessions)
            lib.SessionGroupOptions_SetSessionNum(options, number)
        if affinity is not None:
            lib.SessionGroupOptions_SetThreadPoolAffinity(options, affinity)
        if worker_threads is not None:
            number = c_int32("worker_threads", worker_threads)
            lib.SessionGroupOptions_SetWorkerThreads(options, number)
        if queue is not None:
            number = c_int32("queue", queue)
            lib.SessionGroupOptions_SetQueue(options, number, wait_when_full)
        elif wait_when_full:
            raise ValueError(
                "wait_when_full needs the number of requests that may wait: queue="
            )
        if drain_timeout_ms is not None:
            number = c_int64("drain_timeout_ms", drain_timeout_ms)
            lib.SessionGroupOptions_SetDrainTimeout(options, number)
        for set_name, name in (
            (lib.SessionGroupOptions_SetCpuset, cpuset),
            (lib.SessionGroupOptions_SetPolicy, policy),
            (lib.SessionGroupOptions_SetExecution, execution),
            (lib.SessionGroupOptions_SetKernels, kernels),
        ):
            if name is not None:
                set_name(options, c_string(name), status.handle)
                status.check()
        lib.SessionGroupOptions_SetMultiStream(options, multi_stream)
        ids = (ctypes.c_int32 * len(gpu_ids))(*(c_int32("gpu_ids", i) for i in gpu_ids))
        lib.SessionGroupOptions_SetGpuIds(options, ids, len(ids), status.handle)
        status.check()
        for name, on in (optimizations or {}).items():
            lib.SessionGroupOptions_SetOptimization(
                options, c_string(name), on, status.handle
            )
            status.check()

        buffer = Buffer()
        pointer = lib.LoadSessionGroupFromSavedModel(
            session_options,
            None,
            c_string(os.fspath(export_dir)),
            c_strings(tags),
            len(tags),
            options,
            buffer.handle,
            status.handle,
        )
        status.check()
        group = Group(pointer)
    return Model(group, signature_defs(buffer.view()))


def describe_all() -> list[dict[str, Any]]:
    """What `Model.describe` says, for each live group of the process, those of
    `tf.compat.v1.Session("session_group:4")` among them."""
    descriptions: list[dict[str, Any]] = json.loads(text(lib.SessionGroup_DescribeAll))
    return descriptions


def explain_all() -> list[dict[str, Any]]:
    """What `Model.explain` says, for each live group of the process, those of
    `tf.compat.v1.Session("session_group:4")` among them."""
    explained: list[dict[str, Any]] = json.loads(text(lib.SessionGroup_ExplainAll))
    return explained


def metrics_text() -> str:
    """What `Model.metrics_text` says, over all live groups of the process."""
    return text(lib.SessionGroup_AllMetricsText)
