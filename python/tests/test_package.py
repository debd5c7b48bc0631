"""What is installed, and what importing it needs."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import session_group
import tensorflow as tf

ROOT = Path(__file__).parents[2]
PACKAGE = Path(session_group.__file__).parent


def test_what_is_tested_is_installed() -> None:
    assert ROOT / "python" not in PACKAGE.parents
    assert (PACKAGE / "py.typed").exists()
    cargo = (ROOT / "Cargo.toml").read_text()
    assert f'[workspace.package]\nversion = "{session_group.__version__}"' in cargo


def test_metadata() -> None:
    distribution = importlib.metadata.distribution("session_group")
    wheel = distribution.read_text("WHEEL") or ""
    assert "Tag: py3-none-linux_" in wheel
    assert "Root-Is-Purelib: false" in wheel
    minor = ".".join(tf.__version__.split(".")[:2])
    assert distribution.requires == [
        "numpy",
        f"tensorflow~={minor}.0; extra == 'tensorflow'",
        f"tensorflow-cpu~={minor}.0; extra == 'tensorflow-cpu'",
    ]


def test_the_library_has_no_path_of_this_machine() -> None:
    dynamic = output("readelf", "--dynamic", str(PACKAGE / "libsession_group.so"))
    assert "libtensorflow_cc.so.2" in dynamic
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic


def test_another_tensorflow_is_refused() -> None:
    error = importing("import tensorflow; tensorflow.__version__ = '2.20.1'")
    assert error.startswith("ImportError: session_group was built for TensorFlow 2.")
    assert "TensorFlow 2.20.1 is installed" in error
    assert "pip install" in error


def test_another_patch_release_is_taken() -> None:
    minor = ".".join(tf.__version__.split(".")[:2])
    assert not importing(f"import tensorflow; tensorflow.__version__ = '{minor}.99'")


def test_no_tensorflow() -> None:
    error = importing("import sys; sys.modules['tensorflow'] = None")
    assert error.startswith("ImportError: session_group needs TensorFlow 2.")
    assert "pip install" in error


def test_the_library_is_loaded_after_the_check() -> None:
    found = "any('libsession_group' in line for line in open('/proc/self/maps'))"
    program = f"""
import tensorflow
tensorflow.__version__ = '1.15.0'
try:
    import session_group
except ImportError:
    print({found})
"""
    assert output(sys.executable, "-c", program) == "False\n"


def importing(before: str) -> str:
    """The last line of what `import session_group` says after some code."""
    run = subprocess.run(
        [sys.executable, "-c", f"{before}\nimport session_group"],
        capture_output=True,
        text=True,
    )
    assert bool(run.returncode) == ("ImportError" in run.stderr), run.stderr
    return run.stderr.strip().splitlines()[-1] if run.returncode else ""


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
