"""Programs in C, as those that load the processor are."""

import json
import os
import statistics
import subprocess
import threading

import pytest
from conftest import LIBRARY, MODELS, ROOT

SOURCES = ROOT / "crates/processor/c_tests"
FULLS, DELTAS, THREADS = 20, 50, 64


def compiled(source, folder, compiler=("gcc", "-std=c11")):
    program = folder / source.partition(".")[0]
    flags = ["-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    paths = [f"-I{ROOT}/crates/processor/include", f"-Wl,-rpath,{LIBRARY.parent}"]
    subprocess.run(
        [
            *compiler,
            *flags,
            *paths,
            SOURCES / source,
            "-x",
            "none",
            LIBRARY,
            "-o",
            program,
        ],
        check=True,
    )
    return program


@pytest.mark.parametrize("compiler", [("gcc", "-std=c11"), ("g++", "-x", "c++")])
def test_the_example(tmp_path, compiler):
    """As the header has it, by C and by C++."""
    program = compiled("example.c", tmp_path, compiler)
    run = subprocess.run(
        [program, MODELS / "half_plus"], capture_output=True, text=True, check=True
    )
    assert run.stdout == "a PredictResponse of 24 bytes\n"
    run = subprocess.run([program, "/nonexistent"], capture_output=True, text=True)
    assert run.returncode == 1 and "/nonexistent" in run.stderr
    run = subprocess.run([program, MODELS / "strings"], capture_output=True, text=True)
    assert run.returncode == 1 and 'has no input "x": it has text' in run.stderr


def test_exported_names():
    """DeepRec's, which clients know, and ours, which no other library of a process has."""
    command = ["nm", "-D", "--defined-only", "--format=just-symbols", LIBRARY]
    nm = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = (ROOT / "crates/processor/tests/exports.txt").read_text()
    assert sorted(nm.stdout.split()) == listed.split()


def test_a_program_with_functions_of_the_same_names(tmp_path):
    """Such as destroy(), which any program may have: neither is taken for the other."""
    program = compiled("names.c", tmp_path, ("gcc", "-std=c11", "-rdynamic"))
    run = subprocess.run(
        [program, MODELS / "half_plus"], capture_output=True, text=True, check=True
    )
    assert run.stdout == "answered twice, ended\n"


def test_a_host_with_its_own_protobuf():
    """That opens the processor as docs/usage.md says."""
    script = ROOT / "c_tests/protobuf/run.sh"
    subprocess.run([script, "processor", LIBRARY, MODELS], check=True)


def test_what_is_installed(tmp_path):
    """As a stranger would use it, from another place than it was installed to."""
    for target in ("install", "install-serving"):
        command = ["make", target, "PREFIX=/opt/x", f"DESTDIR={tmp_path}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    prefix = (tmp_path / "opt").rename(tmp_path / "moved") / "x"
    assert (prefix / "share/session_group/predict.proto").is_file()
    program = tmp_path / "example"
    lib = prefix / "lib"
    flags = [
        f"-I{prefix}/include",
        f"-L{lib}",
        "-lserving_processor",
        f"-Wl,-rpath,{lib}",
    ]
    subprocess.run(["gcc", SOURCES / "example.c", *flags, "-o", program], check=True)
    subprocess.run(
        [program, MODELS / "half_plus"], check=True, stdout=subprocess.DEVNULL
    )


def test_the_end_of_a_process_that_takes_checkpoints(trainer, tmp_path):
    trainer.full(1)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(trainer.config(checkpoint_poll_interval_ms=1)))
    program, ends, step = compiled("exit.c", tmp_path), threading.Event(), 2

    def write():
        nonlocal step
        while not ends.wait(0.02):
            trainer.full(step, f"run{step % 2}")
            step += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for i in range(15):
            microseconds = str(30000 + 3000 * i)
            run = subprocess.run([program, config, microseconds], capture_output=True)
            assert run.returncode == 0, run
    finally:
        ends.set()
        writer.join()
    assert step > 15


def test_many_threads_over_many_updates(trainer, tmp_path):
    """No request fails, each answer is that of one version, and nothing is left of old ones."""
    trainer.full(1)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(trainer.config(checkpoint_poll_interval_ms=10)))
    program = subprocess.Popen(
        [compiled("updates.c", tmp_path), config, str(THREADS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # What is free lies in few enough pieces to be given back, and not with threads.
        env=os.environ
        | {
            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
            "MALLOC_ARENA_MAX": "1",
            "RUST_LOG": "warn",
        },
    )
    assert program.stdout.readline() == "ready\n"
    step, folder, resident = 1, "run", []

    def serves():
        """Waits until the last step serves; what is resident, in KiB."""
        while True:
            program.stdin.write("\n")
            program.stdin.flush()
            line = program.stdout.readline().split()
            assert line, f"it has ended: {program.wait()}"
            if line[3].endswith(f"-{step}"):
                return int(line[0])

    for full in range(FULLS):
        for _ in range(DELTAS // FULLS + (full < DELTAS % FULLS)):
            step += 1
            trainer.delta(step, folder)
            serves()
        step, folder = step + 1, f"run{full % 2}"
        trainer.full(step, folder)
        serves()
        # By then the group before is freed.
        resident.append(serves())
    output, _ = program.communicate()
    assert program.returncode == 0
    print(output, "resident KiB after each full checkpoint:", resident)
    assert f"of {1 + FULLS + DELTAS} versions" in output
    third = FULLS // 3
    first, last = (
        statistics.median(resident[third : 2 * third]),
        statistics.median(resident[-third:]),
    )
    assert last < first * 1.05, resident
