"""Kinds of models, what a configuration says, warm-up and timelines."""

import json

import eas
import numpy as np
import pytest
import tensorflow as tf
from conftest import ATTRIBUTE, KEYS, MODELS, REQUEST, VALUES, Trainer

tf1 = tf.compat.v1


class Trainer1:
    """As a training program of TensorFlow 1, as DeepRec's are, with each kind of variable."""

    def __init__(self, folder, resources):
        self.saved_model, self.checkpoints = (
            folder / "saved_model",
            folder / "checkpoints",
        )
        vocabulary = folder / "vocabulary.txt"
        vocabulary.write_text("at\nbr\ncn\n")
        with tf.Graph().as_default():
            kind = {"use_resource": resources}
            table = tf1.get_variable(
                "table", [50, 4], initializer=tf1.zeros_initializer(), **kind
            )
            bias = tf1.get_variable(
                "bias", [], initializer=tf1.zeros_initializer(), **kind
            )
            halves = tf1.get_variable(
                "halves",
                [4, 2],
                initializer=tf1.zeros_initializer(),
                partitioner=tf1.fixed_size_partitioner(2),
                **kind,
            )
            label = tf1.get_variable(
                "label",
                [],
                tf.string,
                initializer=tf1.constant_initializer("v0"),
                **kind,
            )
            step = tf1.train.get_or_create_global_step()
            ids = tf1.placeholder(tf.int64, [None], "ids")
            words = tf1.placeholder(tf.string, [None], "words")
            lookup = tf.lookup.StaticVocabularyTable(
                tf.lookup.TextFileInitializer(
                    str(vocabulary),
                    tf.string,
                    tf.lookup.TextFileIndex.WHOLE_LINE,
                    tf.int64,
                    tf.lookup.TextFileIndex.LINE_NUMBER,
                ),
                1,
            )
            rows = tf.gather(table, ids)
            everything = tf.concat(
                [
                    tf.reshape(rows, [-1]),
                    [bias],
                    tf.reshape(tf.convert_to_tensor(halves), [-1]),
                ],
                0,
            )
            outputs = {
                "least": tf.reduce_min(everything),
                "most": tf.reduce_max(everything),
                "words": lookup.lookup(words),
                "label": tf.identity(label),
            }
            self.new = tf1.placeholder(tf.float32, [])
            self.assigns = [
                tf1.assign(variable, tf.fill(variable.shape, self.new))
                for variable in [table, bias, *halves]
            ]
            self.assigns.append(
                tf1.assign(
                    label,
                    tf.strings.join(
                        ["v", tf.strings.as_string(tf.cast(self.new, tf.int32))]
                    ),
                )
            )
            self.step = tf1.assign(step, tf.cast(self.new, tf.int64))
            self.saver = tf1.train.Saver(max_to_keep=100)
            self.session = tf1.Session()
            self.session.run(
                [tf1.global_variables_initializer(), tf1.tables_initializer()]
            )
            tf1.saved_model.simple_save(
                self.session,
                str(self.saved_model),
                {"ids": ids, "words": words},
                outputs,
                legacy_init_op=tf1.tables_initializer(),
            )
        vocabulary.unlink()

    config = Trainer.config

    def full(self, version):
        self.session.run([self.assigns, self.step], {self.new: version})
        (self.checkpoints / "run").mkdir(parents=True, exist_ok=True)
        # It writes the file `checkpoint`, too.
        with self.session.graph.as_default():
            return self.saver.save(
                self.session, str(self.checkpoints / "run/model.ckpt"), version
            )

    def delta(self, version, tensors):
        folder = self.checkpoints / "run/.incremental_checkpoint"
        folder.mkdir(exist_ok=True)
        tf.raw_ops.SaveV2(
            prefix=str(folder / f"incr-{version}"),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )


WORDS = {"ids": eas.array("INT64", [0, 3]), "words": eas.array("STRING", [b"cn", b"?"])}


def versions(outputs):
    return (
        outputs["least"].float_val[0],
        outputs["most"].float_val[0],
        outputs["label"].string_val[0],
    )


@pytest.mark.parametrize("resources", [False, True])
def test_models_of_tensorflow_1(start, tmp_path, resources):
    trainer = Trainer1(tmp_path, resources)
    first = trainer.full(3)
    processor = start(trainer.config())
    assert processor.info().model_path == first
    outputs = processor.predict(WORDS)
    assert versions(outputs) == (3, 3, b"v3")
    # The table comes from a file of the SavedModel's own.
    assert list(outputs["words"].int64_val) == [2, 3]
    trainer.full(5)
    processor.wait(lambda info: info.model_path.endswith("-5"))
    assert versions(processor.predict(WORDS)) == (5, 5, b"v5")
    trainer.delta(
        6,
        {
            f"table{KEYS}": np.array([3, 0]),
            f"table{VALUES}": np.array([[7.0] * 4, [6.0] * 4], "f4"),
            "bias": np.float32(6),
            "label": np.array("v6"),
        },
    )
    processor.wait(lambda info: info.model_path.endswith("-6"))
    assert versions(processor.predict(WORDS)) == (5, 7, b"v6")
    # A partitioned variable.
    trainer.delta(7, {"halves": np.array([[4, 5], [5, 5], [5, 5], [5, 9]], "f4")})
    processor.wait(lambda info: info.model_path.endswith("-7"))
    assert versions(processor.predict(WORDS)) == (4, 9, b"v6")
    trainer.full(8)
    processor.wait(lambda info: info.model_path.endswith("-8"))
    assert versions(processor.predict(WORDS)) == (8, 8, b"v8")


def checkpointed(folder, module, signatures):
    """A model with a checkpoint; the configuration, and what writes a delta."""
    tf.saved_model.save(module, str(folder / "model"), signatures=signatures)
    checkpoints = folder / "checkpoints"
    (checkpoints / ".incremental_checkpoint").mkdir(parents=True)
    tf.train.Checkpoint(root=module).write(str(checkpoints / "c-1"))
    tf1.train.update_checkpoint_state(str(checkpoints), str(checkpoints / "c-1"))

    def delta(step, tensors):
        tf.raw_ops.SaveV2(
            prefix=str(checkpoints / f".incremental_checkpoint/d-{step}"),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )

    config = {
        "savedmodel_dir": str(folder / "model"),
        "checkpoint_dir": str(checkpoints),
        "checkpoint_poll_interval_ms": 50,
        "session_num": 2,
    }
    return config, delta


def test_memory_that_others_share_is_not_written_to(start, tmp_path, capfd):
    """TensorFlow lets a variable share what is assigned to it, be it another's value or a constant."""

    class Sharing(tf.Module):
        def __init__(self):
            super().__init__()
            self.a = tf.Variable(tf.zeros([1000]))
            self.b = tf.Variable(tf.zeros([1000]))
            self.c = tf.Variable(tf.zeros([1000]))

        @tf.function(input_signature=[])
        def share(self):
            self.b.assign(self.a)
            self.c.assign(tf.constant(np.arange(1000, dtype=np.float32)))
            return {"done": tf.constant(1)}

        @tf.function(input_signature=[])
        def serve(self):
            return {
                "a": self.a.read_value()[7],
                "b": self.b.read_value()[7],
                "c": self.c.read_value()[7],
            }

    module = Sharing()
    config, delta = checkpointed(
        tmp_path, module, {"share": module.share, "serving_default": module.serve}
    )
    processor = start(config)

    def values():
        # Of length 0, a request asks for the signature.
        outputs = processor.predict({}, outputs="abc")
        return [outputs[name].float_val[0] for name in "abc"]

    processor.predict({}, signature="share")
    assert values() == [0, 0, 7]
    delta(
        2,
        {
            f"a{ATTRIBUTE}": np.full(1000, 5, "f4"),
            f"c{ATTRIBUTE}": np.full(1000, 9, "f4"),
        },
    )
    processor.wait(lambda info: info.model_path.endswith("d-2"))
    assert values() == [5, 0, 9]
    assert "in place: 0, assigned: 2" in capfd.readouterr().err
    # The constant is what it was, and what is assigned by now is each one's own.
    processor.predict({}, signature="share")
    assert values() == [5, 5, 7]
    delta(3, {f"b{ATTRIBUTE}": np.full(1000, 6, "f4")})
    processor.wait(lambda info: info.model_path.endswith("d-3"))
    assert values() == [5, 6, 7]


def test_variables_that_requests_scatter_into(start, tmp_path, capfd):
    class Counting(tf.Module):
        def __init__(self):
            super().__init__()
            self.counts = tf.Variable(tf.zeros([1000]))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "ids")])
        def serve(self, ids):
            self.counts.scatter_add(
                tf.IndexedSlices(tf.ones_like(ids, tf.float32), ids)
            )
            return {"counts": tf.gather(self.counts, ids)}

    module = Counting()
    config, delta = checkpointed(tmp_path, module, module.serve)
    processor = start(config)
    ask = {"ids": eas.array("INT32", [3])}
    assert processor.predict(ask)["counts"].float_val[0] == 1
    rows = f"counts{ATTRIBUTE}"
    delta(2, {rows + KEYS: np.array([3]), rows + VALUES: np.array([100], "f4")})
    processor.wait(lambda info: info.model_path.endswith("d-2"))
    assert processor.predict(ask)["counts"].float_val[0] == 101
    assert "in place: 1, assigned: 0" in capfd.readouterr().err


def test_what_is_changed_when_it_is_restored_is_not_left_out_of_a_delta(
    start, tmp_path
):
    """By a Saver with a reshape, as some of TensorFlow 1 have it."""
    saved_model, checkpoints = tmp_path / "model", tmp_path / "checkpoints"
    with tf.Graph().as_default(), tf1.Session() as session:
        weights = tf1.get_variable("weights", [4], initializer=tf1.ones_initializer())
        bias = tf1.get_variable("bias", [], initializer=tf1.ones_initializer())
        x = tf1.placeholder(tf.float32, [], "x")
        y = tf.reduce_sum(weights) * x + bias
        saver = tf1.train.Saver([weights], reshape=True)
        assert saver
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(str(saved_model))
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            saver=tf1.train.Saver(reshape=True),
        )
        builder.save()
        (checkpoints / ".incremental_checkpoint").mkdir(parents=True)
        tf1.train.Saver().save(session, str(checkpoints / "c"), 1)
    processor = start(
        {
            "savedmodel_dir": str(saved_model),
            "checkpoint_dir": str(checkpoints),
            "checkpoint_poll_interval_ms": 50,
        }
    )
    tf.raw_ops.SaveV2(
        prefix=str(checkpoints / ".incremental_checkpoint/d-2"),
        tensor_names=["weights"],
        shape_and_slices=[""],
        tensors=[np.zeros([4], "f4")],
    )
    info = processor.wait(lambda info: info.update_error)
    assert "weights is not simply assigned" in info.update_error
    assert processor.predict({"x": eas.array("FLOAT", 2.0, [])})["y"].float_val[0] == 9


def test_zeros_that_are_too_many(start, tmp_path):
    class Large(tf.Module):
        def __init__(self):
            super().__init__()
            self.bias = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([1 << 40], tf.string, "words")])
        def serve(self, words):
            return {"y": self.bias + 0.0 * tf.cast(tf.size(words), tf.float32)}

    module = Large()
    config, _ = checkpointed(tmp_path, module, module.serve)
    start(config, fails="too large to be made up")


@pytest.mark.parametrize(
    "config, says",
    [
        (b"{", "model_config is not JSON"),
        (b"\xff", "model_config is not UTF-8"),
        ({}, "no savedmodel_dir"),
        (
            {"savedmodel_dir": "/nonexistent"},
            "SavedModel /nonexistent: reading it failed",
        ),
        ({"savedmodel": "/m"}, 'did you mean "savedmodel_dir"'),
        ({"model_store_type": "oss"}, "only DeepRec's own TensorFlow has"),
        ({"signature_name": "z"}, 'no signature "z": the model has serving_default'),
        ({"session_num": 0}, "session_num"),
        ({"session_num": 2, "cpusets": "0;x"}, "cpuset"),
        ({"warmup_file_name": "none"}, "warmup_file_name: none"),
        ({"checkpoint_dir": "/nonexistent", "init_timeout_minutes": 0}, "/nonexistent"),
    ],
)
def test_wrong_configurations(start, trainer, config, says, monkeypatch):
    if isinstance(config, dict) and config and "savedmodel_dir" not in config:
        config = {"savedmodel_dir": str(trainer.saved_model)} | config
    start(config, fails=says)


def test_a_configuration_with_comments(start, trainer):
    """As DeepRec's parser takes them."""
    trainer.full(1)
    text = json.dumps(trainer.config(), indent=2)
    lines = [f'{line} // "of" {{ this' for line in text.splitlines()]
    config = "/* A model,\n   * and its // checkpoints. */\n" + "\n".join(lines)
    processor = start(config.encode())
    assert processor.predict(REQUEST)["least"].float_val[0] == 1
    start(b'{"savedmodel_dir": "/m" /* and so on }', fails="in line 1 and does not end")


def test_a_model_without_variables_takes_no_checkpoints(start, trainer):
    trainer.full(1)
    start(
        trainer.config(savedmodel_dir=str(MODELS / "strings")),
        fails="restores no variables",
    )


def test_pinned_sessions_and_policies(start, trainer):
    trainer.full(1)
    for policy in ("MOD", "RR", "least_loaded", "cpu_local"):
        config = trainer.config(
            session_num=2,
            cpusets="0;0",
            select_session_policy=policy,
            use_per_session_threads=True,
            inter_op_parallelism_threads=2,
            intra_op_parallelism_threads=1,
            omp_num_threads=4,
        )
        assert start(config).predict(REQUEST)["least"].float_val[0] == 1


def test_warm_up_by_file(start, trainer, tmp_path):
    trainer.full(1)
    (tmp_path / "warm.bin").write_bytes(eas.request(REQUEST))
    config = trainer.config(warmup_file_name="warm.bin")
    start(config, entry=str(tmp_path).encode())
    start(trainer.config(warmup_file_name=str(tmp_path / "warm.bin")))
    (tmp_path / "warm.bin").write_bytes(
        eas.request(REQUEST | {"ids": eas.array("INT64", [-1])})
    )
    start(config, entry=str(tmp_path).encode(), fails="warming up, ")
    (tmp_path / "warm.bin").write_bytes(b"\xff")
    start(config, entry=str(tmp_path).encode(), fails="no PredictRequest")


def test_warm_up_runs_on_each_session_before_a_version_serves(start, tmp_path):
    """A model that counts its requests, and so those that warm up."""

    class Counting(tf.Module):
        def __init__(self):
            super().__init__()
            self.count = tf.Variable(0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "words")])
        def serve(self, words):
            return {"count": self.count.assign_add(tf.maximum(tf.size(words), 1))}

    module = Counting()
    config, _ = checkpointed(tmp_path, module, module.serve)
    processor = start(config | {"session_num": 3})
    count = processor.predict({"words": eas.array("STRING", [b"a"])})["count"]
    assert count.int_val[0] == 4


def test_timelines(start, trainer, tmp_path):
    folder = tmp_path / "timelines"
    timelines = {
        "timeline_path": str(folder),
        "timeline_start_step": 1,
        "timeline_interval_step": 2,
        "timeline_trace_count": 2,
    }
    trainer.full(1)
    processor = start(trainer.config(session_num=3, **timelines))
    for _ in range(8):
        processor.predict(REQUEST)
    files = sorted(file.name for file in folder.iterdir())
    assert files == ["saved_model-timeline-0.json", "saved_model-timeline-1.json"]
    events = json.loads((folder / files[0]).read_text())["traceEvents"]
    assert any(event.get("cat") == "Op" and event["dur"] >= 0 for event in events)


def test_a_warm_up_that_fails_keeps_the_old_version(start, trainer, tmp_path):
    trainer.full(1)
    warm = tmp_path / "warm.bin"
    # A row that a smaller table would not have can't be read: the checkpoint's shape differs.
    warm.write_bytes(eas.request(REQUEST))
    processor = start(trainer.config(warmup_file_name=str(warm)))
    smaller = tf.train.Checkpoint(
        table=tf.Variable(tf.zeros([2, 8])),
        weights=tf.Variable(tf.zeros([64, 64])),
        bias=tf.Variable(0.0),
    )
    smaller.write(str(trainer.checkpoints / "run/model.ckpt-2"))
    trainer.current(2)
    info = processor.wait(lambda info: info.update_error)
    assert info.model_path.endswith("-1")
    assert processor.predict(REQUEST)["least"].float_val[0] == 1
