"""New checkpoints while a model serves."""

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
