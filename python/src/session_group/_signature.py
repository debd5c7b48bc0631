"""Signatures of a SavedModel as functions."""

import threading
from collections.abc import Container, Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from ._group import Group, GroupCallable
from ._input import Input
from ._library import lib
from ._output import described, output, shape, spec_of
from ._routes import Routes, are_same
from ._status import Status, c_strings
from ._tensor import Array, Tensors
from ._tensorflow import tf


class Signature:
    """A function of the model: NumPy arrays in, NumPy arrays out. Any number of threads may call it.

    Inputs are passed by name; the only one, or the only one without a default, also by position. An input
    for which the model has a default may be left out.

    Numbers, lists and arrays are converted to the input's type. Integers must fit; floating-point numbers
    are rounded to the nearest one, and must not become infinite. Truth values may become integers, integers
    floating-point numbers, and these complex ones, not the other way. Strings are `bytes` or `str`, which is
    encoded as UTF-8; strings that come out are `bytes`.

    An output that is sparse or ragged is a `tf.compat.v1.SparseTensorValue` or a
    `tf.compat.v1.ragged.RaggedTensorValue`; one of another type that has several tensors is a tuple of these.

    Example:

        >>> words = model.signatures["serving_default"](text=["to be or not to be"])
        >>> words["count"]
        array([2, 2, 1, 1], dtype=int32)
        >>> model.signatures["serving_default"](["to be"])["count"]
        array([1, 1], dtype=int32)
    """

    def __init__(self, group: Group, name: str, definition: Any) -> None:
        self.name = name
        self._group = group
        self._inputs = [_input(name, key, i) for key, i in definition.inputs.items()]
        self._inputs.sort(key=lambda i: i.name)
        self._by_name = {i.name: i for i in self._inputs}
        self._defaults = dict(definition.defaults)
        self._outputs = [output(*item) for item in sorted(definition.outputs.items())]
        self.inputs: Mapping[str, tf.TypeSpec] = MappingProxyType(
            {key: spec_of(key, i) for key, i in sorted(definition.inputs.items())}
        )
        """What each input needs."""
        self.outputs: Mapping[str, tf.TypeSpec] = MappingProxyType(
            {output.name: output.spec for output in self._outputs}
        )
        """What each output is."""
        self._routes = Routes(
            [i.tensor for i in self._inputs],
            [tensor for output in self._outputs for tensor in output.tensors],
        )
        # Where each output is a tensor that is fetched: its name, and which one.
        self._plain = (
            [(o.name, i) for o, i in zip(self._outputs, self._routes.sources)]
            if not any(o.kind for o in self._outputs) and self._routes.has_no_fed
            else None
        )
        self._feeds = [self._inputs[i] for i in self._routes.feeds]
        self._several = [
            f"{key!r} ({info.WhichOneof('encoding') or 'none'})"
            for key, info in definition.inputs.items()
            if info.WhichOneof("encoding") != "name"
        ]
        self._callable: GroupCallable | None = None
        self._lock = threading.Lock()

    def __call__(self, /, *positional: Any, **inputs: Any) -> dict[str, Any]:
        """Runs the signature on the session that the policy chooses.

        Raises TypeError or ValueError for inputs that don't fit, and what `tensorflow.errors` has for
        what goes wrong while running.
        """
        self._check_encodings()
        if positional:
            self._name(positional, inputs)
        arrays = self._arrays(inputs)
        fetches = len(self._routes.fetches)
        with Tensors(len(self._feeds)) as feeds, Tensors(fetches) as fetched:
            # Where all outputs are inputs, there is nothing to run.
            if fetches:
                function = self._callable or self._make_callable()
                self._fill(feeds, arrays)
                status = Status()
                lib.SessionGroupCallable_Run(
                    function.pointer,
                    feeds.array,
                    len(self._feeds),
                    fetched.array,
                    fetches,
                    status.handle,
                )
                status.check()
            results = [fetched.take(i) for i in range(fetches)]
        if self._plain is not None:
            return {name: results[i] for name, i in self._plain}
        fed = [(array, i.dtype) for array, i in zip(arrays, self._inputs)]
        values = iter(self._routes.results(results, fed))
        return {
            output.name: output.value([next(values) for _ in output.tensors])
            for output in self._outputs
        }

    def warm_up(self, /, *positional: Any, **inputs: Any) -> None:
        """Runs the signature once on each session, on all at the same time.

        The first request of a session prepares it, which takes from milliseconds to seconds.
        """
        self._check_encodings()
        if positional:
            self._name(positional, inputs)
        arrays = self._arrays(inputs)
        if not self._routes.fetches:
            return
        with Tensors(len(self._feeds)) as feeds:
            self._fill(feeds, arrays)
            status = Status()
            feed_names = c_strings([i.tensor for i in self._feeds])
            lib.SessionGroup_WarmUp(
                self._group.pointer,
                feed_names,
                feeds.array,
                len(feed_names),
                c_strings(self._routes.fetches),
                len(self._routes.fetches),
                None,
                0,
                status.handle,
            )
            status.check()

    def __repr__(self) -> str:
        outputs = _describe(self.outputs)
        return f"<Signature {self.name!r}: ({self._takes()}) -> ({outputs})>"

    def _name(self, positional: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Adds what is passed by position to what is passed by name."""
        names = [name for name in self.inputs if name not in self._defaults]
        names = names or list(self.inputs)
        if not names:
            raise TypeError(f"signature {self.name!r} takes nothing")
        if len(names) > 1:
            raise TypeError(
                f"signature {self.name!r} has several inputs, and a SavedModel doesn't keep their order: "
                f"pass them by name: ({_by_name(names)})"
            )
        [name] = names
        where = self._by_name[name].where
        if len(positional) > 1:
            raise TypeError(
                f"{where}: is all that may be passed by position, got {len(positional)}"
            )
        if name in inputs:
            raise TypeError(f"{where}: got it by position and by name")
        if isinstance(positional[0], Mapping):
            raise TypeError(
                f"{where}: got a {type(positional[0]).__name__}: pass inputs by name, as (**inputs)"
            )
        inputs[name] = positional[0]

    def _arrays(self, inputs: dict[str, Any]) -> list[Array]:
        if inputs.keys() != self._by_name.keys():
            inputs = self._with_defaults(inputs)
        arrays = [i.array(inputs[i.name]) for i in self._inputs]
        for one, other in self._routes.repeated:
            first, second = self._inputs[one], self._inputs[other]
            if not are_same(arrays[one], arrays[other], first.dtype):
                raise ValueError(
                    f"{second.where}: is the same tensor as input {first.name!r}, {first.tensor!r}, and "
                    f"needs the same value"
                )
        return arrays

    def _with_defaults(self, inputs: dict[str, Any]) -> dict[str, Any]:
        missing = self._by_name.keys() - inputs.keys()
        if not inputs.keys() <= self._by_name.keys() or not (
            missing <= self._defaults.keys()
        ):
            raise self._wrong_names(inputs)
        # What is given for a tensor holds for all of its names.
        given = {self._by_name[name].tensor: value for name, value in inputs.items()}
        values = {
            name: tf.make_ndarray(self._defaults[name])
            if (tensor := self._by_name[name].tensor) not in given
            else given[tensor]
            for name in missing
        }
        return {**inputs, **values}

    def _fill(self, feeds: Tensors, arrays: list[Array]) -> None:
        for i, (number, to) in enumerate(zip(self._routes.feeds, self._feeds)):
            feeds.put(i, arrays[number], to.dtype)

    def _make_callable(self) -> GroupCallable:
        with self._lock:
            if self._callable is None:
                status = Status()
                feeds = c_strings([i.tensor for i in self._feeds])
                pointer = lib.SessionGroup_MakeCallable(
                    self._group.pointer,
                    feeds,
                    len(feeds),
                    c_strings(self._routes.fetches),
                    len(self._routes.fetches),
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
                f"signature {self.name!r} has inputs of several tensors: "
                f"{', '.join(self._several)}: feed these by Model.run()"
            )

    def _wrong_names(self, got: Iterable[str]) -> TypeError:
        problems = [
            f"has no input {name!r}{did_you_mean(name, self._by_name)}"
            for name in got
            if name not in self._by_name
        ]
        problems += [
            f"needs {name!r}"
            for name in self._by_name
            if name not in got and name not in self._defaults
        ]
        takes = self._takes() or "nothing"
        return TypeError(
            f"signature {self.name!r} {', '.join(problems)}; it takes {takes}"
        )

    def _takes(self) -> str:
        return _describe(self.inputs, self._defaults)


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
    known = shape(info)
    dims = None if known.rank is None else tuple(known.as_list())
    where = f"signature {signature!r}, input {name!r}"
    return Input(name, where, info.name, info.dtype, dims)


def _by_name(names: list[str]) -> str:
    """How these are passed in a call."""
    if all(name.isidentifier() for name in names):
        return ", ".join(f"{name}=..." for name in names)
    return f"**{{{', '.join(f'{name!r}: ...' for name in names)}}}"


def _describe(specs: Mapping[str, Any], optional: Container[str] = ()) -> str:
    return ", ".join(
        f"{name}: {described(spec)}{' (optional)' if name in optional else ''}"
        for name, spec in specs.items()
    )
