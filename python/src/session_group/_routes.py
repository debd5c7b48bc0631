"""Which tensors of a request are fed and fetched.

TensorFlow takes each tensor once, and fetches none that is fed; `tf.compat.v1.Session.run` gives what was
fed instead, and so does this package.
"""

from collections.abc import Sequence

import numpy as np

from ._tensor import STRING, Array, numpy_dtype


class Routes:
    """How the feeds and fetches of a request become those of TensorFlow, by their names."""

    __slots__ = ("feeds", "fetches", "has_no_fed", "repeated", "sources")

    def __init__(self, feeds: Sequence[str], fetches: Sequence[str]) -> None:
        first: dict[str, int] = {}
        for i, name in enumerate(feeds):
            first.setdefault(tensor_name(name), i)
        self.feeds = list(first.values())
        """Those to feed."""
        self.repeated = [
            (first[tensor_name(name)], i)
            for i, name in enumerate(feeds)
            if first[tensor_name(name)] != i
        ]
        """Those that are a tensor which another one before them is, too."""
        names = [tensor_name(name) for name in fetches]
        self.fetches = list(dict.fromkeys(name for name in names if name not in first))
        """The names to fetch."""
        index = {name: i for i, name in enumerate(self.fetches)}
        # A feed by the complement of its number.
        self.sources = [index[n] if n in index else ~first[n] for n in names]
        """Where each fetch comes from."""
        self.has_no_fed = all(source >= 0 for source in self.sources)
        """Whether no fetch is a feed."""

    def results(
        self, fetched: Sequence[Array], fed: Sequence[tuple[Array, int]]
    ) -> list[Array]:
        """What is asked for, of what was fetched and of what was fed, with its types."""
        return [fetched[i] if i >= 0 else as_fetched(*fed[~i]) for i in self.sources]


def as_fetched(array: Array, dtype: int) -> Array:
    """The array that comes back of a tensor with this array's contents."""
    if dtype == STRING:
        fetched = np.empty(array.shape, object)
        fetched.flat[:] = [s.encode() if isinstance(s, str) else s for s in array.flat]
    else:
        fetched = np.array(array, numpy_dtype(dtype))
    fetched.flags.writeable = False
    return fetched


def are_same(one: Array, other: Array, dtype: int) -> bool:
    """Whether both are the same tensor, to the last bit."""
    one, other = as_fetched(one, dtype), as_fetched(other, dtype)
    if one.shape != other.shape:
        return False
    if one.dtype.hasobject:
        return bool(np.array_equal(one, other))
    return one.tobytes() == other.tobytes()


def tensor_name(name: str) -> str:
    """ "x" is "x:0"."""
    return name if ":" in name else f"{name}:0"
