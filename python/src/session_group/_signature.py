"""Signatures of a SavedModel as functions."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from ._group import Group, GroupCallable
from ._input import Input
from ._library import lib
from ._status import Status, c_strings
from ._tensor import Array, Tensors
from ._tensorflow import tf


class Signature:
    """A function of the model: NumPy arrays in, NumPy arrays out. Any number of threads may call it.

    Inputs are passed by name. An array must have a type that the signature's holds without loss;
    numbers and lists of Python's own need only fit. Strings are `bytes` or `str`, which is encoded as
    UTF-8; strings that come out are `bytes`.

    Example:

        >>> words = model.signatures["serving_default"](text=["to be or not to be"])
        >>> words["count"]
        array([2, 2, 1, 1], dtype=int32)
    """

    def __init__(self, group: Group, name: str, definition: Any) -> None:
        self.name = name
        self._group = group
        self._inputs = [_input(name, key, i) for key, i in definition.inputs.items()]
        self._inputs.sort(key=lambda i: i.name)
        self._by_name = {i.name: i for i in self._inputs}
        outputs = sorted(definition.outputs.items())
        self.inputs: Mapping[str, tf.TensorSpec] = _specs(definition.inputs)
        """What each input needs."""
        self.outputs: Mapping[str, tf.TensorSpec] = _specs(definition.outputs)
        """What each output is."""
        # A tensor that is several outputs is fetched once.
        self._fetches = list(dict.fromkeys(info.name for _, info in outputs))
        self._outputs = [(key, self._fetches.index(i.name)) for key, i in outputs]
        self._several = [
            f"{name!r} ({info.WhichOneof('encoding')})"
            for name, info in [*definition.inputs.items(), *outputs]
            if info.WhichOneof("encoding") != "name"
        ]
        self._callable: GroupCallable | None = None
        self._lock = threading.Lock()

    def __call__(self, /, **inputs: Any) -> dict[str, Array]:
        """Runs the signature on the session that the policy chooses.

        Raises TypeError or ValueError for inputs that don't fit, and what `tensorflow.errors` has for
        what goes wrong while running.
        """
        arrays = self._arrays(inputs)
        function = self._callable or self._make_callable()
        fetches = len(self._fetches)
        with Tensors(len(arrays)) as feeds, Tensors(fetches) as fetched:
            self._fill(feeds, arrays)
            status = Status()
            lib.SessionGroupCallable_Run(
                function.pointer,
                feeds.array,
                len(arrays),
                fetched.array,
                fetches,
                status.handle,
            )
            status.check()
            results = [fetched.take(i) for i in range(fetches)]
        return {name: results[i] for name, i in self._outputs}

    def warm_up(self, /, **inputs: Any) -> None:
        """Runs the signature once on each session, on all at the same time.

        The first request of a session prepares it, which takes from milliseconds to seconds.
        """
        self._check_encodings()
        arrays = self._arrays(inputs)
        with Tensors(len(arrays)) as feeds:
            self._fill(feeds, arrays)
            status = Status()
            feed_names = c_strings([i.tensor for i in self._inputs])
            lib.SessionGroup_WarmUp(
                self._group.pointer,
                feed_names,
                feeds.array,
                len(feed_names),
                c_strings(self._fetches),
                len(self._fetches),
                None,
                0,
                status.handle,
            )
            status.check()

    def __repr__(self) -> str:
        inputs, outputs = map(_describe, (self.inputs, self.outputs))
        return f"<Signature {self.name!r}: ({inputs}) -> ({outputs})>"

    def _arrays(self, inputs: dict[str, Any]) -> list[Array]:
        if inputs.keys() != self._by_name.keys():
            raise self._wrong_names(inputs)
        return [i.array(inputs[i.name]) for i in self._inputs]

    def _fill(self, feeds: Tensors, arrays: list[Array]) -> None:
        for i, (array, to) in enumerate(zip(arrays, self._inputs)):
            feeds.put(i, array, to.dtype)

    def _make_callable(self) -> GroupCallable:
        with self._lock:
            if self._callable is None:
                self._check_encodings()
                status = Status()
                feeds = c_strings([i.tensor for i in self._inputs])
                pointer = lib.SessionGroup_MakeCallable(
                    self._group.pointer,
                    feeds,
                    len(feeds),
                    c_strings(self._fetches),
                    len(self._fetches),
                    None,
                    0,
                    status.handle,
                )
                status.check()
                self._callable = GroupCallable(pointer)
            return self._callable

    def _check_encodings(self) -> None:
        if self._several:
            raise NotImplementedError(
                f"signature {self.name!r} has inputs or outputs of several tensors: "
                f"{', '.join(self._several)}: feed and fetch these by Model.run()"
            )

    def _wrong_names(self, got: Iterable[str]) -> TypeError:
        problems = [
            f"has no input {name!r}{did_you_mean(name, self._by_name)}"
            for name in got
            if name not in self._by_name
        ]
        problems += [f"needs {name!r}" for name in self._by_name if name not in got]
        takes = _describe(self.inputs) or "nothing"
        return TypeError(
            f"signature {self.name!r} {', '.join(problems)}; it takes {takes}"
        )


class Signatures(Mapping[str, Signature]):
    """The signatures of a model by name."""

    def __init__(self, signatures: Iterable[Signature]) -> None:
        self._signatures = {s.name: s for s in sorted(signatures, key=lambda s: s.name)}

    def __getitem__(self, name: str) -> Signature:
        try:
            return self._signatures[name]
        except KeyError:
            names = ", ".join(map(repr, self)) or "none"
            hint = did_you_mean(name, self)
            raise KeyError(f"no signature {name!r}{hint}; there is: {names}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._signatures)

    def __len__(self) -> int:
        return len(self._signatures)

    def __repr__(self) -> str:
        return f"Signatures({list(self._signatures.values())})"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(str(name), list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _input(signature: str, name: str, info: Any) -> Input:
    dims = None if info.tensor_shape.unknown_rank else _dims(info.tensor_shape)
    where = f"signature {signature!r}, input {name!r}"
    return Input(name, where, info.name, info.dtype, dims)


def _dims(shape: Any) -> tuple[int | None, ...]:
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _specs(infos: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            name: tf.TensorSpec(tf.TensorShape(info.tensor_shape), info.dtype, name)
            for name, info in sorted(infos.items())
        }
    )


def _describe(specs: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}: {spec.dtype.name}{_shape(spec.shape)}" for name, spec in specs.items()
    )


def _shape(shape: Any) -> str:
    if shape.rank is None:
        return " of any shape"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
