"""A short run of the fuzzer that compares random graphs with stock TensorFlow, with fixed seeds."""

import subprocess
import sys
from pathlib import Path

import session_group

RUN = Path(__file__).parents[2] / "fuzz" / "answers" / "run.py"
LIBRARY = Path(session_group.__file__).parent / "libsession_group.so"


def test_answers_are_those_of_stock_tensorflow(tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), "--seed=1", "--count=16"]
    command += [f"--library={LIBRARY}", f"--findings={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "graphs: 16" in done.stdout
