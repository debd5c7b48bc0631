"""Serves a SavedModel with a session group: one copy of the model, many threads.

python examples/python/serve.py models/build/wide_deep
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import session_group

SESSIONS, THREADS, REQUESTS = 4, 8, 100


def request(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, 10**6, (1, 26)),
        "dense": rng.standard_normal((1, 13), np.float32),
        "country": rng.choice(["at", "de", "us"], 1).astype(object),
    }


def client(model: session_group.Model, number: int) -> float:
    """One thread of a server; gives the best score of its requests."""
    requests = [request(number * REQUESTS + i) for i in range(REQUESTS)]
    return max(float(model(**r)["score"][0]) for r in requests)


def main(export_dir: str) -> None:
    with session_group.load(export_dir, SESSIONS, policy="least_loaded") as model:
        print(model.signatures["serving_default"])
        # Each session prepares itself with its first request: before there are clients.
        model.warm_up(**request(0))
        with ThreadPoolExecutor(THREADS) as threads:
            best = max(threads.map(lambda i: client(model, i), range(THREADS)))
        print(f"{THREADS * REQUESTS} requests, the best score is {best:.3f}")
        for session in model.stats():
            p50, p99 = session.latency_p50_ns / 1e3, session.latency_p99_ns / 1e3
            print(
                f"session {session.session}: {session.runs:4} requests, "
                f"p50 {p50:.0f} µs, p99 {p99:.0f} µs"
            )


if __name__ == "__main__":
    main(sys.argv[1])
