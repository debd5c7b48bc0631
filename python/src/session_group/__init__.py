"""One TensorFlow model served by N sessions that share its variables.

    >>> import session_group
    >>> model = session_group.load(export_dir, 4)
    >>> model.signatures["serving_default"]
    <Signature 'serving_default': (text: string[?]) -> (count: int32[?], words: string[?])>
    >>> answer = model(text=["to be or not to be"])
    >>> answer["words"]
    array([b'<to>', b'<be>', b'<or>', b'<not>'], dtype=object)
    >>> [session.runs for session in model.stats()]
    [1, 0, 0, 0]
    >>> model.close()

Threads may call a model at the same time: while TensorFlow runs, other Python threads do. Importing
this package also makes `tf.compat.v1.Session("session_group:4")` a group of four sessions.
"""

from importlib.metadata import version

from ._model import Model, describe_all, explain_all, load, metrics_text
from ._signature import Signature, Signatures
from ._stats import MemoryStats, SessionStats, memory_stats

__all__ = [
    "MemoryStats",
    "Model",
    "SessionStats",
    "Signature",
    "Signatures",
    "describe_all",
    "explain_all",
    "load",
    "memory_stats",
    "metrics_text",
]
__version__ = version("session_group")
