"""The same count for the model server: short requests over gRPC, from connections that it spreads over
its serving threads.
"""

import argparse
import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import numpy as np
from sharing import GUEST, QEMU, Symbols, shared_lines
from tensorflow import make_tensor_proto
from tensorflow_serving.apis import predict_pb2

SERVER = pathlib.Path("target/release/session_group_model_server")
METHOD = "/tensorflow.serving.PredictionService/Predict"
CONNECTIONS = STREAMS = 4
LIMIT = 60


def message() -> bytes:
    """A request of the tests' Wide & Deep."""
    chance = np.random.default_rng(1)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "wide_deep"
    inputs = {
        "ids": chance.integers(0, 1 << 30, (1, 26)),
        "dense": chance.random((1, 13), np.float32),
        "country": [b"de"],
    }
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(make_tensor_proto(value))
    return request.SerializeToString()


@contextlib.contextmanager
def server(tools: pathlib.Path, folder: pathlib.Path):
    """One under QEMU, and its port."""
    (folder / "wide_deep").mkdir()
    (folder / "wide_deep/1").symlink_to(
        pathlib.Path("models/build/wide_deep").resolve()
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    libraries = pathlib.Path("third_party/tensorflow/lib").resolve()
    guest = GUEST | {
        "LD_PRELOAD": str(tools / "marks.so"),
        "LD_LIBRARY_PATH": str(libraries),
        "MAPS": str(folder / "maps.txt"),
    }
    command = [*QEMU]
    for name, value in guest.items():
        command += ["-E", f"{name}={value}"]
    command += [
        "-plugin",
        f"{tools / 'lines.so'},out={folder / 'lines.txt'}",
        str(SERVER),
    ]
    command += [
        f"--port={port}",
        "--model_name=wide_deep",
        f"--model_base_path={folder / 'wide_deep'}",
        f"--session_num_per_group={CONNECTIONS}",
        f"--serving_threads={CONNECTIONS}",
        # An emulator takes long for what is short.
        "--short_request_micros=999999",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield process, port
    finally:
        process.send_signal(signal.SIGHUP)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


class Clients:
    """Connections that keep some requests open each."""

    def __init__(self, port: int):
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [
            grpc.insecure_channel(f"localhost:{port}", options)
            for _ in range(CONNECTIONS)
        ]
        self.calls = [channel.unary_unary(METHOD) for channel in self.channels]
        self.body = message()

    def wait(self, process: subprocess.Popen, log: pathlib.Path):
        """Until the server serves."""
        ready = [grpc.channel_ready_future(channel) for channel in self.channels]
        while not all(future.done() for future in ready):
            if process.poll() is not None:
                raise SystemExit(f"the server has ended: {log.read_text()[-2000:]}")
            time.sleep(0.5)

    def ask(self, each: int):
        """So many requests on each connection; the first answer that is none ends the program."""
        faults = []

        def one(call):
            open_ = []
            for _ in range(each):
                open_.append(call.future(self.body, timeout=600, wait_for_ready=True))
                if len(open_) == STREAMS:
                    faults.append(open_.pop(0).exception())
            faults.extend(asked.exception() for asked in open_)

        threads = [threading.Thread(target=one, args=(call,)) for call in self.calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        faults = [fault for fault in faults if fault is not None]
        if faults:
            raise SystemExit(f"a request failed: {faults[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "tools", type=pathlib.Path, help="where marks.so and lines.so are"
    )
    parser.add_argument("--requests", type=int, default=300, help="of each connection")
    parser.add_argument("--top", type=int, default=5, help="how many lines to show")
    parser.add_argument(
        "--json", type=pathlib.Path, help="write all lines there, with their code"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with server(args.tools.resolve(), folder) as (process, port):
            clients = Clients(port)
            clients.wait(process, folder / "log")
            # The first ones go to other threads, until each serving thread has found out that they are short.
            clients.ask(100)
            process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            clients.ask(args.requests)
            process.send_signal(signal.SIGUSR2)
            time.sleep(1)
        maps = (folder / "maps.txt").read_text()
        text = (folder / "lines.txt").read_text()
    lines = shared_lines(text, Symbols(maps), args.requests * CONNECTIONS)
    stores = round(sum(line["stores"] for line in lines), 1)
    loads = round(sum(line["loads"] for line in lines), 1)
    print(
        f"\nmodel server, gRPC, {CONNECTIONS} connections of {STREAMS} streams: {stores} stores, {loads} loads a "
        f"request on lines that several threads write (at most {LIMIT} stores)\n"
    )
    for line in lines[: args.top]:
        by = "; ".join(
            f"{code['a_request']} {code['code'][:90]}" for code in line["stored_by"][:3]
        )
        print(f"    {line['stores']} at {line['line']} by {by}")
    if args.json is not None:
        args.json.write_text(json.dumps(lines, indent=1))
    if stores > LIMIT:
        sys.exit(f"\n{stores} stores are more than the {LIMIT} that there may be")


if __name__ == "__main__":
    main()
