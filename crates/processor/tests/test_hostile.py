"""SavedModels whose graphs lead nowhere: they are refused, and soon."""

import json
import subprocess
import sys

import pytest
from conftest import LIBRARY, Trainer
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from test_models import Trainer1

SECONDS = 60
INITIALIZE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.initialize.restype = ctypes.c_void_p
print("made" if library.initialize(b"", sys.argv[2].encode(), None) else "refused")
"""


def initialize(config):
    """In a process of its own, which can be ended: the outcome, and what it says."""
    run = subprocess.run(
        [sys.executable, "-c", INITIALIZE, LIBRARY, json.dumps(config)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run
    return run.stdout.strip(), run.stderr


def changed(trainer, change):
    """Lets `change` change the graph of the SavedModel."""
    path = trainer.saved_model / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (meta,) = model.meta_graphs
    change(meta.graph_def)
    path.write_bytes(model.SerializeToString())


def circle(nodes, add, first_of, a_type):
    """Puts a circle of Identity nodes before an assignment."""
    (assign, *_) = [node for node in nodes if node.op in ("Assign", "AssignVariableOp")]
    names = [f"circle_{i}" for i in range(3)]
    for name, before in zip(names, names[-1:] + names[:-1]):
        node = add()
        node.name, node.op = name, "Identity"
        node.input.append(first_of(before))
        node.attr["T"].type = a_type
    assign.input[1] = first_of(names[0])
    return names


def test_a_circle_before_an_assignment(tmp_path):
    trainer = Trainer1(tmp_path, True)
    trainer.full(1)

    def change(graph):
        # Those of the SavedModel's own Saver.
        nodes = [node for node in graph.node if node.name.startswith("save_1/")]
        circle(nodes, graph.node.add, lambda name: name, types_pb2.DT_FLOAT)

    changed(trainer, change)
    outcome, says = initialize(trainer.config())
    assert outcome == "refused"
    assert "node circle_0 gets its own output" in says


def restore_function(graph):
    """The function that restores what TensorFlow 2 has saved."""
    (function, *_) = [
        function
        for function in graph.library.function
        if any(node.op == "RestoreV2" for node in function.node_def)
    ]
    return function


@pytest.mark.parametrize(
    "what, a_type",
    [
        ("value", types_pb2.DT_FLOAT),
        ("variable", types_pb2.DT_RESOURCE),
        ("names", types_pb2.DT_STRING),
        ("slices", types_pb2.DT_STRING),
    ],
)
def test_a_circle_in_a_function(tmp_path, what, a_type):
    """Wherever something is looked for behind nodes that pass it on."""
    trainer = Trainer(tmp_path)
    trainer.full(1)

    def change(graph):
        function = restore_function(graph)
        nodes = function.node_def
        names = circle(nodes, nodes.add, lambda name: f"{name}:output:0", a_type)
        restore, assign = (
            next(node for node in function.node_def if node.op == op)
            for op in ("RestoreV2", "AssignVariableOp")
        )
        circled = f"{names[0]}:output:0"
        if what != "value":
            assign.input[1] = f"{restore.name}:tensors:0"
        if what == "variable":
            assign.input[0] = circled
        if what in ("names", "slices"):
            restore.input[1 if what == "names" else 2] = circled

    changed(trainer, change)
    outcome, says = initialize(trainer.config())
    assert outcome == "refused"
    assert "gets its own output" in says and "node circle_" in says


def call(function, called, arguments, name):
    node = function.node_def.add()
    node.name, node.op = name, "StatefulPartitionedCall"
    node.input.extend(arguments)
    node.attr["f"].func.name = called.signature.name
    for key in ("Tin", "Tout"):
        node.attr[key].list.SetInParent()
    node.attr["Tin"].list.type.extend(arg.type for arg in called.signature.input_arg)


def nested(graph, calls, levels=40):
    """Functions that each call the next one so many times; the restore function calls the first."""
    functions = []
    for level in range(levels):
        function = graph.library.function.add()
        function.signature.name = f"nested_{level}"
        functions.append(function)
    for function, called in zip(functions, functions[1:]):
        for i in range(calls):
            call(function, called, [], f"call_{i}")
    call(restore_function(graph), functions[0], [], "calls_nested")
    return functions


@pytest.mark.parametrize("recursive", [False, True])
def test_functions_that_call_each_other_again_and_again(tmp_path, recursive):
    trainer = Trainer(tmp_path)
    trainer.full(1)

    def change(graph):
        functions = nested(graph, 1 if recursive else 8)
        if recursive:
            call(functions[-1], functions[0], [], "again")

    changed(trainer, change)
    outcome, says = initialize(trainer.config())
    assert outcome == "refused"
    if recursive:
        assert "node again calls the function nested_0, within which it is" in says
    else:
        assert "node call_0 calls the function nested_" in says
        assert "makes more than 1048576 nodes" in says


@pytest.mark.parametrize("calls, levels", [(1, 40), (40, 3)])
def test_functions_that_call_others_within_reason(tmp_path, calls, levels):
    trainer = Trainer(tmp_path)
    trainer.full(1)
    changed(trainer, lambda graph: nested(graph, calls, levels))
    assert initialize(trainer.config())[0] == "made"


def test_functions_that_are_nested_deeply(tmp_path):
    trainer = Trainer(tmp_path)
    trainer.full(1)
    changed(trainer, lambda graph: nested(graph, 1, 100))
    outcome, says = initialize(trainer.config())
    assert outcome == "refused"
    assert "the last of 64 that call each other" in says


def test_functions_whose_calls_all_differ(tmp_path):
    """Each passes its arguments on in other orders, so that no two calls are the same."""
    trainer = Trainer(tmp_path)
    trainer.full(1)

    def change(graph):
        functions = nested(graph, 0)
        count, a_type = 12, types_pb2.DT_RESOURCE
        for function in functions:
            for i in range(count):
                function.signature.input_arg.add(name=f"a{i}", type=a_type)
        names = [f"a{i}" for i in range(count)]
        for function, called in zip(functions, functions[1:]):
            for i in range(1, count):
                names[0], names[i] = names[i], names[0]
                call(function, called, names, f"call_{i}")
                names[0], names[i] = names[i], names[0]
        handles = []
        for i in range(count):
            node = graph.node.add(name=f"handle_{i}", op="VarHandleOp")
            node.attr["dtype"].type = types_pb2.DT_FLOAT
            node.attr["shape"].shape.SetInParent()
            node.attr["shared_name"].s = node.name.encode()
            handles.append(node.name)
        function = restore_function(graph)
        (caller, *_) = [
            node
            for node in graph.node
            if node.attr["f"].func.name == function.signature.name
        ]
        del function.node_def[-1]
        for name in names:
            function.signature.input_arg.add(name=f"more_{name}", type=a_type)
        place = [i for i, name in enumerate(caller.input) if not name.startswith("^")][
            -1
        ]
        for handle in reversed(handles):
            caller.input.insert(place + 1, handle)
        caller.attr["Tin"].list.type.extend([a_type] * count)
        call(function, functions[0], [f"more_{name}" for name in names], "calls_nested")

    changed(trainer, change)
    outcome, says = initialize(trainer.config())
    assert outcome == "refused"
    assert "makes more than 1048576 nodes" in says
