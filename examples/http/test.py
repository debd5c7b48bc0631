"""Tests the HTTP server: right answers under concurrent load, clear errors, and a clean end.

python examples/http/test.py SERVER MODELS
"""

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from client import Client, runs, serving

CLIENTS, REQUESTS = 16, 100
WORDS = ["to", "be", "or", "not", "that", "is", "the", "question"]


def test_load(program: str, models: str) -> None:
    def requests(seed: int) -> None:
        client = Client(port)
        for i in range(REQUESTS):
            client.count(
                [WORDS[(seed + i * j) % len(WORDS)] for j in range(1 + i % 12)]
            )

    with (
        serving(program, f"{models}/strings") as (_, port),
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        assert Client(port).send("GET", "/healthz")[0] == 200
        loaded = runs(port)
        list(clients.map(requests, range(CLIENTS)))
        served = [
            after - before for before, after in zip(loaded, runs(port), strict=True)
        ]
        assert served == [CLIENTS * REQUESTS // 4] * 4


def test_errors(program: str, models: str) -> None:
    inputs = {"ids": [[1, 2, 3]], "words": [[[1, 2], [3, 4]]], "x": [[0.5, 1]]}
    with serving(program, f"{models}/lookups") as (_, port):
        client = Client(port)
        assert client.send("POST", "/predict", json.dumps({"inputs": inputs}))[0] == 200
        for body, says in [
            ("{", "parse error"),
            ("[]", "no JSON object"),
            ("{}", "inputs"),
            ('{"inputs": []}', '"inputs" is no object'),
            ('{"inputs": {}}', "is missing"),
            ('{"inputs": {}, "signature_name": "sum"}', '"sum"'),
            ({"id": [[1, 2, 3]]}, 'no input "id"'),
            ({"ids": [["1", 2, 3]]}, "is no int64"),
            ({"ids": [[1.5, 2, 3]]}, "1.5 is no int64"),
            ({"ids": [[2**63, 2, 3]]}, "is no int64"),
            ({"ids": [[10**6, 2, 3]]}, "not in [0, 10)"),
            ({"ids": [1, 2, 3]}, "shape is [3], not [?,3]"),
            ({"ids": [[1, 2, 3], 4]}, "rows differ in depth"),
            ({"ids": [[1, 2, 3], [4]]}, "rows differ in size"),
            ('{"inputs": {"ids": ' + "[" * 10000 + "]" * 10000 + "}}", "too deep"),
            ({"words": [[[1, 2], [3, 2**31]]]}, "is no int32"),
            ({"x": [[0.5, 1e39]]}, "is no float"),
        ]:
            sent = (
                body if isinstance(body, str) else json.dumps({"inputs": inputs | body})
            )
            status, answer = client.send("POST", "/predict", sent)
            assert status == 400 and says in json.loads(answer)["error"], (body, answer)
        assert client.send("POST", "/nothing", "{}")[0] == 404


def test_nothing_is_lost_at_the_end(program: str, models: str) -> None:
    """Clients that leave once the server says that it ends get answers until then."""
    with serving(program, f"{models}/strings", "--drain", "1") as (process, port):
        signalled = threading.Event()

        def client(seed: int) -> int:
            connection, answered = Client(port), 0
            while (
                not signalled.is_set() or connection.send("GET", "/healthz")[0] == 200
            ):
                connection.count([WORDS[(seed + answered) % len(WORDS)]] * 3)
                answered += 1
            connection.count(["still", "served"])
            return answered

        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = [clients.submit(client, seed) for seed in range(CLIENTS)]
            threading.Event().wait(0.5)
            process.send_signal(signal.SIGTERM)
            signalled.set()
            assert all(answer.result() > 0 for answer in answers)
        assert process.wait(30) == 0


if __name__ == "__main__":
    test_load(*sys.argv[1:])
    test_errors(*sys.argv[1:])
    test_nothing_is_lost_at_the_end(*sys.argv[1:])
    print("all answers are right")
