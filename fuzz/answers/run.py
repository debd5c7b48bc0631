"""Random graphs and requests: a group must answer as a stock session of the same process does.

    run.py [--seconds S] [--seed FIRST] [--count N] [--library libsession_group.so] [--findings DIR]

Each seed makes a graph and a sequence of requests, some of which must fail. Answers are compared bit for
bit, errors by their codes. What differs is saved to DIR, and ends the run: `--seed SEED --count 1` repeats
it. A child process runs the seeds; where it dies, the seed is a finding, too.
"""

import argparse
import ctypes
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
# A child runs no more seeds than this, since TensorFlow keeps functions for as long as the process.
SEEDS_OF_A_CHILD = 40
LIMIT = 600  # seconds for a child


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1 << 40)
    root = HERE.parents[1]
    library = root / "target" / "release" / "libsession_group.so"
    parser.add_argument("--library", type=pathlib.Path, default=library)
    findings = root / "target" / "fuzz" / "findings" / "answers"
    parser.add_argument("--findings", type=pathlib.Path, default=findings)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep-going", action="store_true")
    args = parser.parse_args()
    if args.child:
        child(args)
    else:
        parent(args)


def parent(args: argparse.Namespace) -> None:
    args.findings.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    seed, stop, found = args.seed, args.seed + args.count, 0
    print(f"seeds from {seed} on", flush=True)
    while seed < stop and time.monotonic() < end:
        count = min(SEEDS_OF_A_CHILD, stop - seed)
        command = [sys.executable, __file__, "--child", f"--seed={seed}"]
        command += [f"--count={count}", f"--seconds={end - time.monotonic()}"]
        command += [f"--library={args.library}", f"--findings={args.findings}"]
        at = args.findings / "seed"
        at.write_text(str(seed))
        try:
            code = subprocess.run(command, timeout=LIMIT).returncode
        except subprocess.TimeoutExpired:
            code = "it did not end"
        last = int(at.read_text())
        if code == 0:
            seed = last + 1
            continue
        found += 1
        print(f"FOUND: seed {last}: {code}; see {args.findings}", flush=True)
        if not args.keep_going:
            break
        seed = last + 1
    if found:
        sys.exit(1)


def child(args: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow  # noqa: F401  # Its libraries must be there before ours.

    library = ctypes.CDLL(str(args.library))
    from sequences import Totals, check

    end = time.monotonic() + args.seconds
    totals = Totals()
    for seed in range(args.seed, args.seed + args.count):
        if time.monotonic() > end and seed > args.seed:
            break
        (args.findings / "seed").write_text(str(seed))
        if not check(seed, library, args.findings, totals):
            sys.exit(1)
    print(totals, flush=True)


if __name__ == "__main__":
    main()
