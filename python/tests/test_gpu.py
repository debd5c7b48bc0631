"""Multi-stream groups, on the GPUs of c_tests/test_gpu."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import session_group
import tensorflow as tf
from stock import MODELS

LIBRARY = Path(__file__).parents[2] / "target" / "libtest_gpu.so"

# A process has its GPUs from the first session on.
SCRIPT = """
import ctypes, json, sys
import numpy as np
import session_group

ctypes.CDLL(sys.argv[1])
request = {"ids": np.arange(8).reshape(2, 4), "x": np.full((2, 16), 0.5, np.float32)}
with session_group.load(sys.argv[2], 2, multi_stream=True, gpu_ids=[1, 0]) as model:
    answers = [model(**request)["y"].tolist() for _ in range(8)]
    streams = [[s.gpu, s.virtual_device, s.stream_group, s.leader] for s in model.stats()]
    description = model.describe()["multi_stream"]
print(json.dumps([answers, streams, description]))
"""


def test_sessions_have_streams() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(LIBRARY), str(MODELS / "on_gpu")],
        env={**os.environ, "TEST_GPU_COUNT": "2"},
        stdout=subprocess.PIPE,
        check=True,
    )
    answers, streams, description = json.loads(ran.stdout)
    assert len(answers[0]) == 2 and len(answers[0][0]) == 8
    assert all(answer == answers[0] for answer in answers)
    assert streams == [
        [1, 2, 0, True],
        [0, 0, 0, True],
        [1, 3, 1, False],
        [0, 1, 1, False],
    ]
    assert description == {"gpu_ids": [1, 0], "mps": None}


def test_without_gpus() -> None:
    with pytest.raises(tf.errors.FailedPreconditionError, match="GPU"):
        session_group.load(MODELS / "on_gpu", 2, multi_stream=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="0 twice"):
        session_group.load(MODELS / "on_gpu", 2, multi_stream=True, gpu_ids=[0, 0])
    with session_group.load(MODELS / "strings", 1) as model:
        assert model.stats()[0].gpu is None and model.stats()[0].leader is None
