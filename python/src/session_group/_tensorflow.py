"""TensorFlow, of the minor version that the library was built for.

All modules import it from here, so that no other version meets the library: TensorFlow's C++ classes
change between minor versions.
"""

from pathlib import Path

__all__ = ["BUILT_FOR", "MINOR", "tf"]

# "2.21.0", written when the wheel is made.
BUILT_FOR = (Path(__file__).parent / "tensorflow_version.txt").read_text().strip()
MINOR = ".".join(BUILT_FOR.split(".")[:2])

try:
    import tensorflow as tf
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise ImportError(
        f"session_group needs TensorFlow {MINOR}, and no TensorFlow is installed: "
        f'install one, for example with `pip install "tensorflow-cpu=={MINOR}.*"`'
    ) from error

if tf.__version__.split(".")[:2] != MINOR.split("."):
    raise ImportError(
        f"session_group was built for TensorFlow {MINOR}, but TensorFlow {tf.__version__} is "
        f'installed: install the other, for example with `pip install "tensorflow-cpu=={MINOR}.*"`, '
        f"or a session_group that was built for TensorFlow {tf.__version__}"
    )
