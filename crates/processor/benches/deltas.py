"""How long deltas of a large table take, how long requests wait for them, and what is resident: make bench-processor.

python crates/processor/benches/deltas.py [--rows N] [--width N] [--changed N] [--deltas N]
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests"))

import numpy as np
import tensorflow as tf

ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Table(tf.Module):
    def __init__(self, rows, width):
        super().__init__()
        self.table = tf.Variable(tf.zeros([rows, width]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "ids")])
    def serve(self, ids):
        return {"sums": tf.reduce_sum(tf.gather(self.table, ids), 1)}


def resident():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return (
        next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    )


def write(arguments, folder):
    module = Table(arguments.rows, arguments.width)
    tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
    run = folder / "checkpoints/run"
    (run / ".incremental_checkpoint").mkdir(parents=True)
    tf.train.Checkpoint(root=module).write(str(run / "full-1"))
    tf.compat.v1.train.update_checkpoint_state(str(run), str(run / "full-1"))
    chance = np.random.default_rng(1)
    for step in range(2, 2 + arguments.deltas):
        keys = chance.choice(arguments.rows, arguments.changed, replace=False)
        values = np.full([arguments.changed, arguments.width], step, np.float32)
        tf.raw_ops.SaveV2(
            prefix=str(folder / f"delta-{step}"),
            tensor_names=[
                f"table{ATTRIBUTE}-sparse_incr_keys",
                f"table{ATTRIBUTE}-sparse_incr_values",
            ],
            shape_and_slices=["", ""],
            tensors=[keys.astype(np.int64), values],
        )


def serve(arguments, folder):
    """In a process of its own, whose memory is the processor's."""
    import conftest
    import eas

    processor = conftest.Processor(
        {
            "savedmodel_dir": str(folder / "model"),
            "checkpoint_dir": str(folder / "checkpoints"),
            "checkpoint_poll_interval_ms": 20,
            "session_num": 2,
        }
    )
    assert processor.state == 0
    request = {"ids": eas.array("INT64", list(range(64)))}
    processor.predict(request)
    print(f"resident: {resident():.0f} MB with the full checkpoint")
    for step in range(2, 2 + arguments.deltas):
        for kind in ("data-00000-of-00001", "index"):
            delta = folder / f"delta-{step}.{kind}"
            delta.rename(
                folder / "checkpoints/run/.incremental_checkpoint" / delta.name
            )
        processor.wait(lambda info: info.model_path.endswith(f"-{step}"))
        processor.predict(request)
    print(f"resident: {resident():.0f} MB with {arguments.deltas} deltas")
    conftest.library.session_group_processor_destroy(processor.handle)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000, help="of the table")
    parser.add_argument("--width", type=int, default=64, help="floats of a row")
    parser.add_argument("--changed", type=int, default=100_000, help="rows of a delta")
    parser.add_argument("--deltas", type=int, default=7)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        return serve(arguments, arguments.folder)
    with tempfile.TemporaryDirectory() as folder:
        write(arguments, pathlib.Path(folder))
        command = [sys.executable, *sys.argv, "--folder", folder]
        run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    times = {"µs": 1e-3, "ms": 1, "s": 1e3}
    found = re.findall(
        r"applied in ([\d.]+)(\D+), for ([\d.]+)(\D+) of which", run.stderr
    )
    applied = [float(a) * times[unit] for a, unit, _, _ in found]
    waited = [float(b) * times[unit] for _, _, b, unit in found]
    size = arguments.rows * arguments.width * 4 / 2**20
    print(
        f"{arguments.deltas} deltas of {arguments.changed} rows of {arguments.width * 4} bytes, of a table of "
        f"{size:.0f} MB"
    )
    for what, all in [("a delta takes", applied), ("requests wait", waited)]:
        print(
            f"{what} {statistics.median(all):.1f} ms ({min(all):.1f} to {max(all):.1f})"
        )
    print(run.stdout, end="")


if __name__ == "__main__":
    main()
