"""What sessions have done, and the memory of large tensors."""

import ctypes
from collections.abc import Mapping
from ctypes import c_int32, c_size_t, c_uint64
from dataclasses import dataclass, field

from ._group import Group
from ._library import lib
from ._status import Status


# How requests may run.
_WAYS = (
    "program",
    "no_program",
    "run_options",
    "may_wait",
    "no_room",
    "disabled",
    "visit",
    "not_run",
)


class _Stats(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("runs", c_uint64),
        ("answers", c_uint64 * 17),
        ("rejected", c_uint64),
        ("in_flight", c_uint64),
        ("queued", c_uint64),
        ("busy_ns", c_uint64),
        ("latency_sum_ns", c_uint64),
        ("latency_p50_ns", c_uint64),
        ("latency_p90_ns", c_uint64),
        ("latency_p99_ns", c_uint64),
        ("latency_p999_ns", c_uint64),
        ("latency_max_ns", c_uint64),
        ("gpu", c_int32),
        ("virtual_device", c_int32),
        ("stream_group", c_int32),
        ("leader", c_int32),
        *((f"way_{way}", c_uint64) for way in _WAYS),
        ("on_pool", c_uint64),
        ("unresolved", c_uint64),
        ("unfused", c_uint64),
    ]


@dataclass(frozen=True)
class SessionStats:
    """What a session has done since it was made, as SessionGroupStats of the C header."""

    session: int
    """The session's number."""
    runs: int
    """Requests answered, whatever the answer."""
    answers: tuple[int, ...]
    """The same by code: `answers[tf.compat.v1.errors.OK]`, `answers[...INVALID_ARGUMENT]`."""
    rejected: int
    """Requests refused because the session's queue was full; counted above, too."""
    in_flight: int
    """Requests given to the session and not answered yet."""
    queued: int
    """Those of them that wait for one of the session's worker threads."""
    busy_ns: int
    """Nanoseconds that threads have run requests on the session, summed up."""
    latency_sum_ns: int
    """Nanoseconds from call to answer, summed up, and quantiles to 1/64 of their value."""
    latency_p50_ns: int
    latency_p90_ns: int
    latency_p99_ns: int
    latency_p999_ns: int
    latency_max_ns: int
    gpu: int | None
    """TensorFlow's number of the session's GPU; this and the next are for multi-stream groups."""
    virtual_device: int | None
    """TensorFlow's number of its virtual device."""
    stream_group: int | None
    """Which of the GPU's streams, from 0."""
    leader: bool | None
    """Whether the GPU's variables are restored on this session."""
    ways: Mapping[str, int] = field(hash=False)
    """The requests again, by the way in which they ran: "program" or, by their names on TensorFlow's
    session, "no_program", "run_options", "may_wait", "no_room", "disabled" or "visit", or "not_run"."""
    on_pool: int
    """Requests that ran by their names on the session's inter-op pool."""
    unresolved: int
    """Programs run that had to read a variable in TensorFlow's way."""
    unfused: int
    """Programs run that gathered rows one table after the other."""


def session_stats(group: Group, session: int) -> SessionStats:
    status, stats = Status(), _Stats(struct_size=ctypes.sizeof(_Stats))
    lib.SessionGroup_GetStats(
        group.pointer, session, ctypes.byref(stats), status.handle
    )
    status.check()
    values = {name: getattr(stats, name) for name, *_ in _Stats._fields_[1:]}
    values["answers"] = tuple(stats.answers)
    on_gpu = stats.gpu >= 0
    for name in ("gpu", "virtual_device", "stream_group"):
        values[name] = values[name] if on_gpu else None
    values["leader"] = stats.leader == 1 if on_gpu else None
    values["ways"] = {way: values.pop(f"way_{way}") for way in _WAYS}
    return SessionStats(session, **values)


class _MemoryStats(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("in_use_bytes", c_uint64),
        ("kept_bytes", c_uint64),
        ("kept_limit_bytes", c_uint64),
        ("hits", c_uint64),
        ("misses", c_uint64),
    ]


@dataclass(frozen=True)
class MemoryStats:
    """The memory of tensors of 1 MiB and more, as SessionGroupMemoryStats of the C header."""

    in_use_bytes: int
    """Bytes that such tensors take, variables and constants included."""
    kept_bytes: int
    """Bytes that are free and kept for the next request."""
    kept_limit_bytes: int
    """What `kept_bytes` never exceeds: SESSION_GROUP_KEPT_BYTES, 0 while no group is open."""
    hits: int
    """Tensors that got memory which was kept."""
    misses: int
    """Tensors for which the system was asked for memory."""


def memory_stats() -> MemoryStats:
    """The memory of large tensors in this process, of all groups together."""
    status, stats = Status(), _MemoryStats(struct_size=ctypes.sizeof(_MemoryStats))
    lib.SessionGroup_GetMemoryStats(ctypes.byref(stats), status.handle)
    status.check()
    return MemoryStats(
        *(getattr(stats, name) for name, *_ in _MemoryStats._fields_[1:])
    )
