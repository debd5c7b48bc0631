"""Who owns what the library makes."""

import os
from collections.abc import Callable

from ._library import lib
from ._status import Status


class Handle:
    """A pointer to what threads or locks belong to: useless in a child that was forked.

    Whoever calls the library with the pointer holds a reference to the handle. So nothing is deleted
    while another thread is inside a call.
    """

    __slots__ = ("_pointer", "_pid")
    _delete: Callable[[int], None]

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self._pid = os.getpid()

    @property
    def pointer(self) -> int:
        if self._pid != os.getpid():
            raise RuntimeError(
                "the model was loaded before this process was forked, and its threads stayed behind: "
                "load it in the child, or start processes by multiprocessing's method 'spawn'"
            )
        return self._pointer

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:
        if self._pid == getpid():
            self._delete(self._pointer)


class Group(Handle):
    """Owns a SessionGroup."""

    __slots__ = ()
    _delete = staticmethod(lib.SessionGroup_Delete)

    def close(self) -> None:
        status = Status()
        lib.SessionGroup_Close(self.pointer, status.handle)
        status.check()


class GroupCallable(Handle):
    """Owns a SessionGroupCallable."""

    __slots__ = ()
    _delete = staticmethod(lib.SessionGroupCallable_Delete)
