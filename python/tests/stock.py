"""A stock session to compare with."""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1

MODELS = Path(__file__).parents[2] / "models" / "build"


class Stock:
    """A SavedModel in a plain session."""

    def __init__(self, export_dir: Path, target: str = "") -> None:
        self.graph = tf.Graph()
        self.session = tf1.Session(target, graph=self.graph)
        with self.graph.as_default():
            self.meta_graph = tf1.saved_model.load(
                self.session, ["serve"], str(export_dir)
            )

    def __enter__(self) -> "Stock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.session.close()

    def call(self, signature: str, **inputs: Any) -> dict[str, Any]:
        definition = self.meta_graph.signature_def[signature]
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: info.name for name, info in definition.outputs.items()}
        outputs: dict[str, Any] = self.session.run(fetches, feeds)
        return outputs


def assert_same(got: Any, want: Any) -> None:
    """The same type, shape and bits; for dicts and lists, of each element."""
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        got, want = list(got.values()), [want[name] for name in got]
    if isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want):
            assert_same(one, other)
        return
    want = np.asarray(want, object if isinstance(want, bytes) else None)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tolist() == want.tolist() if got.dtype.hasobject else True
    assert got.dtype.hasobject or got.tobytes() == want.tobytes()
