"""New checkpoints while a model serves."""

import os
import pathlib
import shutil
import threading
import time

import eas
import numpy as np
import pytest
import tensorflow as tf
from conftest import ATTRIBUTE, KEYS, POLL_MS, REQUEST, VALUES


def version(processor):
    outputs = processor.predict(REQUEST)
    least, most = outputs["least"].float_val[0], outputs["most"].float_val[0]
    assert least == most
    return least


def serves(processor, step):
    processor.wait(lambda info: info.model_path.endswith(f"-{step}"))
    assert version(processor) == step


def test_full_checkpoints_and_deltas_are_taken(start, trainer, capfd):
    first = trainer.full(1)
    processor = start(trainer.config())
    assert processor.info().model_path == first
    assert version(processor) == 1
    delta = trainer.delta(2)
    serves(processor, 2)
    # Not copied, as TensorFlow's scatter operations copy a variable that is in use.
    assert "written in place: 3, assigned: 0" in capfd.readouterr().err
    info = processor.info()
    assert (info.model_path, info.full_checkpoint) == (delta, first)
    assert list(info.deltas) == [delta]
    assert (info.full_updates, info.delta_updates) == (0, 1)
    # Rows that the delta does not have are still those of the full one.
    cold = REQUEST | {"ids": eas.array("INT64", [99_999])}
    outputs = processor.predict(cold)
    assert (outputs["least"].float_val[0], outputs["most"].float_val[0]) == (1, 2)
    trainer.full(10)
    serves(processor, 10)
    assert list(processor.info().deltas) == []
    assert processor.info().full_updates == 1
    # Of another folder, as another run of the trainer writes it.
    trainer.full(5, "another")
    serves(processor, 5)
    trainer.delta(6, "another")
    trainer.delta(7, "another")
    serves(processor, 7)
    assert processor.info().update_error == ""


def test_what_is_there_at_first_is_served_at_first(start, trainer):
    trainer.full(1)
    trainer.delta(2)
    trainer.delta(3)
    processor = start(trainer.config())
    assert version(processor) == 3
    assert processor.info().model_path.endswith("-3")


def test_rolling_back(start, trainer):
    trainer.full(1)
    trainer.full(2)
    processor = start(trainer.config())
    assert version(processor) == 2
    trainer.delta(3)
    serves(processor, 3)
    trainer.current(1)
    serves(processor, 1)
    trainer.current(2)
    serves(processor, 3)
    # A delta that is taken away.
    for file in (trainer.checkpoints / "run/.incremental_checkpoint").iterdir():
        file.unlink()
    serves(processor, 2)


def test_a_broken_full_checkpoint_leaves_the_old_one(start, trainer):
    trainer.full(1)
    processor = start(trainer.config())
    folder = trainer.checkpoints / "run"
    trainer.full(2, "../hidden")
    for file in (trainer.folder / "hidden").glob("*-2.*"):
        shutil.copy(file, folder)
    data = next(folder.glob("*-2.data-*"))
    data.write_bytes(data.read_bytes()[:1000])
    trainer.current(2)
    info = processor.wait(lambda info: "model.ckpt-2" in info.update_error)
    assert info.model_path.endswith("-1")
    assert version(processor) == 1
    # One that lacks a variable.
    broken = trainer.delta(4)
    for file in pathlib.Path(broken).parent.glob("*-4.*"):
        file.rename(folder / file.name.replace("incr", "model"))
    trainer.current(4)
    info = processor.wait(lambda info: "model.ckpt-4" in info.update_error)
    assert "table" in info.update_error
    trainer.full(3)
    serves(processor, 3)
    assert processor.info().update_error == ""


def test_a_broken_checkpoint_is_not_tried_again_and_again(start, trainer, capfd):
    trainer.full(1)
    processor = start(trainer.config())
    trainer.delta(2, change=lambda tensors: tensors.pop(f"table{ATTRIBUTE}{VALUES}"))
    processor.wait(lambda info: info.update_error)
    # As many looks as there may be.
    time.sleep(1)
    attempts = capfd.readouterr().err.count(": delta ")
    assert attempts == 2, "one line for the attempt, one for what came of it"
    assert version(processor) == 1


def test_a_broken_full_checkpoint_is_not_restored_for_each_delta(start, trainer, capfd):
    trainer.full(1)
    processor = start(trainer.config())
    prefix = pathlib.Path(trainer.full(2))
    processor.wait(lambda info: info.model_path.endswith("-2"))
    trainer.full(3, "../hidden")
    for file in (trainer.folder / "hidden").glob("*-3.*"):
        shutil.copy(file, prefix.parent)
    data = next(prefix.parent.glob("*-3.data-*"))
    data.write_bytes(data.read_bytes()[:1000])
    trainer.current(3)
    processor.wait(lambda info: "model.ckpt-3" in info.update_error)
    for step in range(4, 8):
        trainer.delta(step)
        time.sleep(0.15)
    assert (
        capfd.readouterr().err.count("DEBUG serving_processor::update: checkpoint ")
        == 2
    )
    assert version(processor) == 2


def test_a_trainer_that_takes_old_deltas_away(start, trainer):
    """As DeepRec's, which keeps so many."""
    trainer.full(1)
    processor = start(trainer.config())
    for step in range(2, 8):
        delta = pathlib.Path(trainer.delta(step))
        serves(processor, step)
        for old in delta.parent.glob("*"):
            if f"-{step}." not in old.name:
                old.unlink()
    # The folder's own file, as DeepRec's trainer writes it.
    tf.compat.v1.train.update_checkpoint_state(str(delta.parent), str(delta))
    trainer.delta(8)
    serves(processor, 8)
    info = processor.info()
    assert (info.full_updates, info.delta_updates) == (0, 7)


def test_checkpoints_in_the_folder_itself(start, trainer):
    trainer.full(1)
    delta = pathlib.Path(trainer.delta(2))
    tf.compat.v1.train.update_checkpoint_state(str(delta.parent), str(delta))
    processor = start(trainer.config(checkpoint_dir=str(trainer.checkpoints / "run")))
    assert version(processor) == 2
    # Copied from where it was written.
    copy = trainer.folder / "copy"
    shutil.copytree(trainer.checkpoints / "run", copy)
    shutil.rmtree(trainer.checkpoints / "run")
    assert version(start(trainer.config(checkpoint_dir=str(copy)))) == 2


def test_a_damaged_block_of_a_large_index(start, trainer):
    """It is not passed over: an index of several blocks, of which one has another bit."""
    trainer.full(1)
    processor = start(trainer.config())
    many = {f"n{i:05}{'x' * 60}": np.float32(0) for i in range(6000)}
    hidden = pathlib.Path(
        trainer.delta(2, "hidden", change=lambda tensors: tensors.update(many))
    )
    index = bytearray(hidden.with_name(hidden.name + ".index").read_bytes())
    assert len(index) > 1 << 18
    place = index.rfind(b"weights")
    index[place] ^= 1
    folder = trainer.checkpoints / "run/.incremental_checkpoint"
    folder.mkdir()
    shutil.copy(next(hidden.parent.glob("*.data-*")), folder)
    (folder / (hidden.name + ".index")).write_bytes(index)
    info = processor.wait(lambda info: info.update_error)
    assert "its index is damaged: a block is not what was written" in info.update_error
    assert version(processor) == 1


def test_a_slow_request_stops_a_delta_and_not_all_others(start, tmp_path):
    class Slow(tf.Module):
        def __init__(self):
            super().__init__()
            self.bias = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32, "n")])
        def serve(self, n):
            x = tf.ones([100, 100])
            for _ in tf.range(n):
                x = tf.linalg.matmul(x, x) / 100.0
            return {"y": x[0, 0] * self.bias}

    module = Slow()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    tf.train.Checkpoint(root=module).write(str(checkpoints / "c-1"))
    tf.compat.v1.train.update_checkpoint_state(
        str(checkpoints), str(checkpoints / "c-1")
    )
    config = {
        "savedmodel_dir": str(tmp_path / "model"),
        "checkpoint_dir": str(checkpoints),
        "checkpoint_poll_interval_ms": POLL_MS,
        "session_num": 2,
    }
    processor = start(config)

    def ask(n):
        return processor.predict({"n": eas.array("INT32", n, [])})["y"].float_val[0]

    ask(1)
    begun = time.monotonic()
    ask(2000)
    per_second = 2000 / (time.monotonic() - begun)
    slow = threading.Thread(target=ask, args=(int(4 * per_second),))
    slow.start()
    time.sleep(0.1)
    (checkpoints / ".incremental_checkpoint").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(checkpoints / ".incremental_checkpoint/d-2"),
        tensor_names=[f"bias{ATTRIBUTE}"],
        shape_and_slices=[""],
        tensors=[np.float32(2)],
    )
    processor.wait(lambda info: "waited in vain" in info.update_error)
    answers = 0
    while slow.is_alive() and answers < 100:
        assert ask(1) == 1
        answers += 1
    assert answers > 10
    slow.join()
    processor.wait(lambda info: info.model_path.endswith("d-2"))
    assert ask(1) == 2


def test_broken_deltas_leave_the_model_whole(start, trainer):
    trainer.full(1)
    processor = start(trainer.config())

    def refused(says, change):
        refused.step += 1
        prefix = trainer.delta(refused.step, change=change)
        info = processor.wait(lambda info: f"-{refused.step}:" in info.update_error)
        assert says in info.update_error, info.update_error
        assert "InvalidArgument" not in info.update_error
        assert version(processor) == 1
        for file in pathlib.Path(prefix).parent.iterdir():
            file.unlink()

    refused.step = 1

    def put(name, value):
        return lambda tensors: tensors.update({f"{name}": value})

    rows = f"table{ATTRIBUTE}"
    refused("has shape [64, 63]", put(f"weights{ATTRIBUTE}", np.ones([64, 63], "f4")))
    refused("is DT_DOUBLE", put(f"bias{ATTRIBUTE}", np.float64(1)))
    refused("no row 100000", put(rows + KEYS, np.full(100, 100_000, np.int64)))
    refused("no row -1", put(rows + KEYS, np.full(100, -1, np.int64)))
    refused("values of shape [100, 8]", put(rows + KEYS, np.arange(7)))
    refused("not DT_INT64", put(rows + KEYS, np.arange(100, dtype="f4")))
    refused("as a whole and by rows", put(rows, np.ones([100_000, 8], "f4")))
    refused("no tensor table", lambda tensors: tensors.pop(rows + VALUES))

    def nothing(tensors):
        tensors.clear()
        tensors["other"] = np.float32(1)

    refused("none of the model's variables: it has other", nothing)

    def scalar(tensors):
        del tensors[f"bias{ATTRIBUTE}"]
        tensors[f"bias{ATTRIBUTE}{KEYS}"] = np.arange(1)
        tensors[f"bias{ATTRIBUTE}{VALUES}"] = np.ones([1], "f4")

    refused("scalar, which has no rows", scalar)
    serves_step = refused.step + 1
    trainer.delta(serves_step)
    serves(processor, serves_step)


@pytest.mark.parametrize("file", ["index", "data-00000-of-00001"])
def test_files_of_a_delta_that_are_cut_off(start, trainer, file):
    trainer.full(1)
    processor = start(trainer.config())
    hidden = pathlib.Path(trainer.delta(2, "hidden"))
    whole = hidden.with_name(f"{hidden.name}.{file}").read_bytes()
    folder = trainer.checkpoints / "run/.incremental_checkpoint"
    folder.mkdir()
    for length in (0, 1, len(whole) // 2, len(whole) - 9):
        for other in hidden.parent.iterdir():
            place = folder / (other.name + ".new")
            place.write_bytes(
                whole[:length] if other.name.endswith(file) else other.read_bytes()
            )
        # The index last, as TensorFlow does.
        for place in sorted(folder.glob("*.new")):
            place.rename(place.with_suffix(""))
        info = processor.wait(lambda info: "incr.ckpt-2" in info.update_error)
        assert info.model_path.endswith("-1")
        assert version(processor) == 1
        for place in folder.iterdir():
            place.unlink()
        processor.wait(lambda info: not info.update_error)


def test_waits_for_the_first_checkpoint(start, trainer):
    trainer.checkpoints.mkdir()
    import threading

    writer = threading.Timer(1, lambda: trainer.full(4))
    writer.start()
    processor = start(trainer.config(init_timeout_minutes=1))
    writer.join()
    assert version(processor) == 4


def test_a_static_model_serves_its_own_variables(start, trainer):
    config = trainer.config()
    del config["checkpoint_dir"]
    processor = start(config)
    assert version(processor) == 0
    info = processor.info()
    assert info.model_path == str(trainer.saved_model)
    assert info.update_error == ""


def rewritten(prefix, write):
    """Lets `write` write a checkpoint anew, which then seems to be as old and as long as it was."""
    index = pathlib.Path(f"{prefix}.index")
    before = index.stat()
    write()
    assert index.stat().st_size == before.st_size
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))


def rows_of(trainer, value, first=0):
    """A change of a delta: only some rows of the table."""

    def change(tensors):
        tensors.clear()
        tensors[f"table{ATTRIBUTE}{KEYS}"] = np.arange(first, first + 7)
        tensors[f"table{ATTRIBUTE}{VALUES}"] = np.full([7, 8], value, "f4")

    return change


def row(processor, index):
    """A row of the table, of which one element is told: the others have the same value."""
    ask = REQUEST | {"ids": eas.array("INT64", [index])}
    outputs = processor.predict(ask)
    values = {outputs["least"].float_val[0], outputs["most"].float_val[0]}
    return max(values - {20}, default=20)


def deltas(info):
    return [int(path.rpartition("-")[2]) for path in info.deltas]


# What the trainer writes after it has gone back: deltas of these steps, and what is served then. Of the old
# ones, those that were written before an earlier one are left out.
@pytest.mark.parametrize(
    "anew, expected",
    [
        ([25, 35], [25, 35]),
        ([30, 35], [25, 30, 35]),
        ([25, 30, 35], [25, 30, 35]),
        ([25], [25]),
        ([30], [25, 30]),
        # Between the old ones, and before them.
        ([27, 35], [25, 27, 35]),
        ([22], [22]),
    ],
)
def test_a_trainer_that_goes_back(start, trainer, capfd, anew, expected):
    """Each delta changes rows of its own: a row that is left from the old history tells."""
    trainer.full(20)
    for step in (25, 30):
        trainer.delta(step, change=rows_of(trainer, step, step * 10))
    processor = start(trainer.config())
    assert deltas(processor.info()) == [25, 30]
    assert (row(processor, 250), row(processor, 300)) == (25, 30)
    time.sleep(0.02)
    for step in anew:
        # As often as not, a look falls between two of them.
        trainer.delta(step, change=rows_of(trainer, 1000 + step, step * 10))
        time.sleep(POLL_MS / 1000)
    info = processor.wait(lambda info: info.full_updates and deltas(info) == expected)
    assert info.update_error == ""
    for step in (22, 25, 27, 30, 35):
        value = 20 if step not in expected else step + 1000 * (step in anew)
        assert row(processor, step * 10) == value, step
    log = capfd.readouterr().err
    assert "is not the one that was applied" in log or "was not applied" in log
    assert "model.ckpt-20 is loaded again" in log


def test_going_back_is_seen_before_the_next_delta_is_applied(start, trainer):
    """By looks that are too rare to see one without the other."""
    trainer.full(20)
    trainer.delta(25, change=rows_of(trainer, 25, 250))
    processor = start(trainer.config(checkpoint_poll_interval_ms=1000))
    assert row(processor, 250) == 25
    trainer.delta(25, change=rows_of(trainer, 1025, 100))
    trainer.delta(35, change=rows_of(trainer, 1035, 350))
    processor.wait(lambda info: deltas(info) == [25, 35] and info.full_updates)
    assert [row(processor, i) for i in (100, 250, 350)] == [1025, 20, 1035]


@pytest.mark.parametrize("name", ["full", "delta"])
def test_what_is_written_anew_is_seen_though_it_seems_as_old(start, trainer, name):
    full = trainer.full(20)
    delta = trainer.delta(25, change=rows_of(trainer, 25))
    processor = start(trainer.config())
    assert (row(processor, 0), row(processor, 50)) == (25, 20)
    # Longer than any clock may need to show a difference.
    time.sleep(0.05)
    if name == "delta":
        rewritten(delta, lambda: trainer.delta(25, change=rows_of(trainer, 26)))
        processor.wait(lambda info: info.full_updates == 1)
        assert (row(processor, 0), row(processor, 50)) == (26, 20)
    else:
        rewritten(full, lambda: write_full(trainer, 20, 21))
        processor.wait(lambda info: info.full_updates == 1)
        assert row(processor, 50) == 21


def write_full(trainer, step, value):
    """A full checkpoint with values other than its step."""
    for variable in trainer.module.variables:
        variable.assign(tf.fill(variable.shape, float(value)))
    folder = trainer.checkpoints / "run"
    tf.train.Checkpoint(root=trainer.module).write(str(folder / f"model.ckpt-{step}"))


def test_a_full_checkpoint_that_is_written_anew_takes_no_old_deltas(start, trainer):
    trainer.full(20)
    trainer.delta(25, change=rows_of(trainer, 25, 250))
    processor = start(trainer.config())
    time.sleep(0.02)
    write_full(trainer, 20, 21)
    processor.wait(lambda info: info.full_updates == 1)
    info = processor.info()
    assert deltas(info) == [] and info.update_error == ""
    ask = REQUEST | {"ids": eas.array("INT64", [250])}
    assert processor.predict(ask)["most"].float_val[0] == 21
    trainer.delta(30, change=rows_of(trainer, 30, 300))
    processor.wait(lambda info: deltas(info) == [30])
    # Written anew, it belongs to what is there.
    trainer.delta(25, change=rows_of(trainer, 1025, 250))
    processor.wait(lambda info: deltas(info) == [25])


def test_the_same_checkpoints_copied_are_no_others(start, trainer, capfd):
    """Their contents count, and not when their files were written."""
    trainer.full(20)
    trainer.delta(25)
    trainer.delta(30)
    processor = start(trainer.config())
    for path in (trainer.checkpoints / "run").rglob("*-*"):
        if path.is_file():
            copy = path.with_name(path.name + ".copy")
            shutil.copyfile(path, copy)
            copy.rename(path)
    trainer.delta(35)
    serves(processor, 35)
    info = processor.info()
    assert (info.full_updates, info.delta_updates) == (0, 1)
    assert deltas(info) == [25, 30, 35]


def test_each_folder_has_a_history_of_its_own(start, trainer):
    trainer.full(20, "a")
    trainer.delta(25, "a")
    processor = start(trainer.config())
    serves(processor, 25)
    trainer.full(20, "b")
    serves(processor, 20)
    trainer.delta(25, "b")
    serves(processor, 25)
    updates = processor.info().full_updates
    # Of a folder that is not served: no reason to load anything.
    trainer.delta(25, "a", change=rows_of(trainer, 1))
    trainer.delta(30, "b")
    serves(processor, 30)
    assert processor.info().full_updates == updates
    trainer.delta(25, "b", change=rows_of(trainer, 1025, 250))
    processor.wait(lambda info: deltas(info) == [25])
    trainer.delta(35, "b")
    processor.wait(lambda info: deltas(info) == [25, 35])
