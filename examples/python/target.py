"""The same program on one session and on a session group: only the target differs.

python examples/python/target.py models/build/tf1_saved_model ""
python examples/python/target.py models/build/tf1_saved_model session_group:4
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import session_group
import tensorflow as tf

tf1 = tf.compat.v1
THREADS, REQUESTS = 8, 100


def main(export_dir: str, target: str) -> None:
    with tf.Graph().as_default(), tf1.Session(target) as session:
        model = tf1.saved_model.load(session, [tf1.saved_model.SERVING], export_dir)
        signature = model.signature_def["serving_default"]
        word, n = signature.inputs["word"].name, signature.inputs["n"].name
        y = signature.outputs["y"].name

        def client(number: int) -> float:
            answers = [
                session.run(y, {word: ["a", "b"], n: (number + i) % 6})
                for i in range(REQUESTS)
            ]
            return float(sum(answer.sum() for answer in answers))

        with ThreadPoolExecutor(THREADS) as threads:
            total = sum(threads.map(client, range(THREADS)))
        print(f"{THREADS * REQUESTS} requests, the sum of all answers is {total}")

        # Outside of the group, nothing tells that there is one.
        for group in session_group.describe_all():
            print(f"a group of {len(group['sessions'])}: policy {group['policy']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
