"""A model with an operation that TensorFlow lacks, from a library that the configuration names."""

import subprocess
import sys

import eas
import pytest
from conftest import ROOT

MAKE_MODEL = """
import sys
import tensorflow as tf
operations = tf.load_op_library(sys.argv[1])
module = tf.Module()
x = tf.TensorSpec([None], tf.float32, name="x")
module.f = tf.function(lambda x: {"y": operations.twice(x)}, input_signature=[x])
tf.saved_model.save(module, sys.argv[2], signatures=module.f)
"""


def test_libraries_are_loaded(start, tmp_path):
    """In one test, because what this process has loaded once stays."""
    library, model = tmp_path / "twice.so", tmp_path / "model"
    subprocess.run([ROOT / "c_tests/test_op/make.sh", library], check=True)
    command = [sys.executable, "-c", MAKE_MODEL, library, model]
    subprocess.run(command, check=True, capture_output=True)

    message = start({"savedmodel_dir": str(model)}, fails="'Twice'")
    says = (
        "that has the operation Twice in model_config's custom_op_libraries" in message
    )
    assert says, message
    config = {"savedmodel_dir": str(model), "custom_op_libraries": [str(library)]}
    processor = start(config)
    (y,) = processor.predict({"x": eas.array("FLOAT", [1.5, 4.0])}).values()
    assert list(y.float_val) == [3.0, 8.0]


@pytest.mark.parametrize(
    ("libraries", "says"),
    [
        (["/no/such.so"], "/no/such.so can't be loaded"),
        (["s3://bucket/a.so"], "local or mounted"),
        ("/a.so", "custom_op_libraries: invalid type"),
    ],
)
def test_libraries_that_can_not_be_loaded(start, tmp_path, libraries, says):
    start({"savedmodel_dir": "/m", "custom_op_libraries": libraries}, fails=says)
