"""Counts the stores and loads of a request on cache lines that several threads write.

These end scaling on many cores: a line that two cores write moves between them with each store. They
don't depend on time or on the number of CPUs, so they are counted under an emulator (QEMU's user mode
with the plug-in lines.c), on any machine. A line counts if two threads or more store to it again and
again: in one of 20 requests or more.
"""

import argparse
import bisect
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SESSIONS = 4
THREADS = 4
RECURRING = 0.05  # stores a request
FEW = 40  # stores, which beginning and ending take
QEMU = ["qemu-x86_64", "-cpu", "max"]
GUEST = {
    # By default, few CPUs have so few of malloc's arenas that threads share them.
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=256",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
# What no library of TensorFlow's lets us avoid: oneDNN locks in each product that Eigen leaves to it.
NOT_OURS = "dnnl::impl::cpu::x64::kern_mutex"


@dataclasses.dataclass
class Model:
    path: str
    fetch: str
    feeds: list[str]


@dataclasses.dataclass
class Case:
    """A way to send requests, and the most stores that it may take."""

    face: str
    target: str
    limit: float | None = None
    threads: int = THREADS
    pinned: bool = False

    @property
    def name(self) -> str:
        return f"{self.face} {self.target}"


def group(policy: str, execution: str = "caller", sessions: int = SESSIONS) -> str:
    return f"session_group://{sessions}?policy={policy}&execution={execution}"


# Zero where a thread stays with its session; the counter of round robin and the two of the session's
# requests in flight.
CASES = [
    Case("callable", group("thread"), 0),
    Case("names", group("thread"), 0),
    Case("cpp", group("thread"), 0),
    Case("cpp_callable", group("thread"), 0),
    Case("callable", group("round_robin"), 4),
    Case("names", group("round_robin"), 4),
    Case("callable", group("least_loaded"), 4),
    Case("cpp_callable", group("round_robin"), 4),
]
PINNED = Case(
    "callable", group("cpu_local", sessions=2) + "&cpuset={cpusets}", 0, 2, True
)
OTHERS = [
    Case("cpp", "stock"),
    Case("cpp_inline", "stock"),
    Case("callable", group("round_robin", "worker")),
]

OF_TESTS = {
    "wide_deep": Model(
        "models/build/wide_deep",
        "StatefulPartitionedCall:0",
        [
            "serving_default_ids:0=int64,1,26",
            "serving_default_dense:0=float,1,13",
            "serving_default_country:0=string,1",
        ],
    ),
}
TYPES = {"ids": "int64", "floats": "float"}


def models_of_benchmark() -> dict[str, Model]:
    """Those that were exported: `make bench-models`."""
    found = {}
    for path in sorted(pathlib.Path("models/build/bench").glob("*/model.json")):
        model = json.loads(path.read_text())
        feeds = []
        for feed in model["inputs"]:
            kind = (
                feed["values"]
                if isinstance(feed["values"], str)
                else next(iter(feed["values"]))
            )
            dims = ",".join(str(max(dim, 1)) for dim in feed["dims"])
            feeds.append(f"{feed['tensorflow']}={TYPES[kind]},{dims}")
        file = path.parent / model["file"]
        found[f"bench/{path.parent.name}"] = Model(
            str(file), model["output"]["tensorflow"], feeds
        )
    return found


class Symbols:
    """Names the code at an address of a process whose /proc/self/maps is known."""

    def __init__(self, maps: str):
        self._starts = []
        self._files = []
        self._bases: dict[str, int] = {}
        self._tables: dict[str, list[tuple[int, int, str]]] = {}
        end = 0
        file = ""
        for line in maps.splitlines():
            fields = line.split(maxsplit=5)
            start, previous_end = int(fields[0].split("-")[0], 16), end
            end = int(fields[0].split("-")[1], 16)
            # A library's zeros follow its file, without a name.
            file = (
                fields[5] if len(fields) > 5 else file if start == previous_end else ""
            )
            self._starts.append(start)
            self._files.append(file)
            self._bases.setdefault(file, start)

    def name(self, address: int) -> str:
        at = bisect.bisect_right(self._starts, address) - 1
        file = self._files[at] if at >= 0 else ""
        if not file.startswith("/"):
            return f"{address:#x}"
        offset = address - self._bases[file]
        library = os.path.basename(file)
        table = self._table(file)
        i = bisect.bisect_right(table, (offset, sys.maxsize, "")) - 1
        if i < 0 or offset >= table[i][0] + table[i][1]:
            return f"{library}+{offset:#x}"  # of a function that has no symbol
        return f"{table[i][2]} ({library})"

    def on_line(self, line: int) -> list[str]:
        """The names of the variables on a cache line that have one."""
        names = {self.name(line + offset) for offset in range(0, 64, 8)}
        return sorted(name.rsplit(" (", 1)[0] for name in names if " (" in name)

    def _table(self, file: str) -> list[tuple[int, int, str]]:
        if file not in self._tables:
            found = []
            for dynamic in (["-D"], []):
                command = ["nm", *dynamic, "-S", "-C", "--defined-only", file]
                text = subprocess.run(command, capture_output=True, text=True).stdout
                for line in text.splitlines():
                    fields = line.split(maxsplit=3)
                    if len(fields) == 4 and fields[2] in "tTwWiVbBdD":
                        found.append(
                            (int(fields[0], 16), int(fields[1], 16), fields[3])
                        )
            self._tables[file] = sorted(found)
        return self._tables[file]


def code_of(text: str, symbols: Symbols, requests: int) -> list[dict]:
    """The functions that store or load, the most frequent first."""
    counts: dict[str, int] = {}
    for place in text[1:].split(","):
        if place:
            pc, count = place.split("=")
            name = symbols.name(int(pc, 16)) if pc != "0" else "elsewhere"
            counts[name] = counts.get(name, 0) + int(count)
    most = sorted(counts.items(), key=lambda item: -item[1])
    return [
        {"code": name, "a_request": round(count / requests, 2)} for name, count in most
    ]


def shared_lines(lines: str, symbols: Symbols, requests: int) -> list[dict]:
    found = []
    for line in lines.splitlines():
        if line.startswith("#"):
            continue
        address, writers, readers, stores, loads, by_store, by_load = line.split(" ")
        if int(writers) < 2 or int(stores) < max(RECURRING * requests, FEW):
            continue
        found.append(
            {
                "line": f"0x{address}",
                "variables": symbols.on_line(int(address, 16)),
                "writers": int(writers),
                "readers": int(readers),
                "stores": round(int(stores) / requests, 2),
                "loads": round(int(loads) / requests, 2),
                "stored_by": code_of(by_store, symbols, requests),
                "loaded_by": code_of(by_load, symbols, requests),
            }
        )
    return sorted(found, key=lambda line: -line["stores"])


def run(model: Model, case: Case, tools: pathlib.Path, each: int) -> dict:
    target = case.target
    if "{cpusets}" in target:
        cpus = sorted(os.sched_getaffinity(0))[: case.threads]
        target = target.format(cpusets=";".join(map(str, cpus)))
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "lines.txt")
        maps = pathlib.Path(folder, "maps.txt")
        environment = os.environ | GUEST | {"MAPS": str(maps)}
        if case.pinned:
            environment["PIN"] = "1"
        command = [*QEMU, "-plugin", f"{tools}/lines.so,out={out}"]
        command += [f"{tools}/drive", case.face, target, str(case.threads), str(each)]
        done = subprocess.run(
            [*command, model.path, model.fetch, *model.feeds],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"{case.name}: {done.stderr[-2000:]}")
        requests = each * case.threads
        lines = shared_lines(out.read_text(), Symbols(maps.read_text()), requests)
    not_ours = sum(line["stores"] for line in lines if NOT_OURS in line["variables"])
    return {
        "face": case.face,
        "target": target,
        "threads": case.threads,
        "stores": round(sum(line["stores"] for line in lines) - not_ours, 2),
        "stores_not_ours": round(not_ours, 2),
        "loads": round(sum(line["loads"] for line in lines), 2),
        "limit": case.limit,
        "lines": lines,
    }


def main() -> None:
    known = OF_TESTS | models_of_benchmark()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tools", type=pathlib.Path, help="where drive and lines.so are")
    parser.add_argument(
        "--models", nargs="+", choices=list(known), default=list(OF_TESTS)
    )
    parser.add_argument("--requests", type=int, default=300, help="of each thread")
    parser.add_argument(
        "--all", action="store_true", help="also stock TensorFlow, and worker threads"
    )
    parser.add_argument(
        "--top", type=int, default=3, help="how many lines to show for each case"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="write all lines there, with their code"
    )
    args = parser.parse_args()

    cases = CASES + ([PINNED] if len(os.sched_getaffinity(0)) > 1 else [])
    cases += OTHERS if args.all else []
    report: dict[str, list[dict]] = {}
    too_many = 0
    for name in args.models:
        print(
            f"\n{name}, stores and loads a request on lines that several threads write:\n"
        )
        print(
            "| face | session target | threads | stores | in oneDNN | loads | at most |"
        )
        print("|---|---|--:|--:|--:|--:|--:|")
        report[name] = []
        for case in cases:
            result = run(known[name], case, args.tools, args.requests)
            report[name].append(result)
            limit = "" if case.limit is None else f"{case.limit:g}"
            row = [
                case.face,
                f"`{result['target']}`",
                case.threads,
                result["stores"],
                result["stores_not_ours"],
                result["loads"],
            ]
            print(f"| {' | '.join(map(str, row))} | {limit} |", flush=True)
            is_too_many = case.limit is not None and result["stores"] > case.limit
            too_many += is_too_many
            for line in result["lines"][: args.top] if is_too_many or args.all else []:
                by = "; ".join(code["code"][:100] for code in line["stored_by"][:2])
                print(f"|   | {line['stores']} at {line['line']} by {by} |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=1))
        print(f"\nWritten to {args.json}")
    if too_many > 0:
        sys.exit(f"\n{too_many} have more stores than they may")


if __name__ == "__main__":
    main()
