"""What a request costs in Python beside its graph, which here only hands a number on.

    target/python-venv/bin/python python/overhead.py [MODELS]

Prints microseconds a request, the median of several rounds in which all take turns, for arrays of 1
and of 65,536 floats.
"""

import statistics
import sys
import timeit

import numpy as np
import session_group
import tensorflow as tf

tf1 = tf.compat.v1
ROUNDS, REQUESTS = 9, 2000


def main() -> None:
    export_dir = f"{sys.argv[1] if len(sys.argv) > 1 else 'models/build'}/every_type"
    model = session_group.load(export_dir, 1)
    signature = model.signatures["float32"]
    stock = tf1.Session(graph=tf.Graph())
    with stock.graph.as_default():
        tf1.saved_model.load(stock, ["serve"], export_dir)
    feed, fetch = "float32/x:0", "float32/y:0"
    stock_callable = stock.make_callable(fetch, [feed], accept_options=True)
    inline = tf1.RunOptions(inter_op_thread_pool=-1)
    for size in (1, 65_536):
        x = np.zeros(size, np.float32)
        ways = {
            "Session.run": lambda: stock.run(fetch, {feed: x}),
            "Session.run, inline": lambda: stock.run(fetch, {feed: x}, inline),
            "make_callable": lambda: stock_callable(x),
            "make_callable, inline": lambda: stock_callable(x, options=inline),
            "Model.run": lambda: model.run({feed: x}, [fetch]),
            "Signature": lambda: signature(x=x),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, run in ways.items():
                times[name].append(timeit.timeit(run, number=REQUESTS) / REQUESTS)
        for name, seconds in times.items():
            print(
                f"{size:6} floats  {name:22}{statistics.median(seconds) * 1e6:8.1f} µs"
            )


main()
