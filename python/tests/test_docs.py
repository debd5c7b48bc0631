"""The examples in the documentation and in examples/python do what they say."""

import contextlib
import doctest
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import session_group
from session_group import _model, _signature
from stock import MODELS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", [session_group, _model, _signature])
def test_docstrings(module: object) -> None:
    names = {
        "session_group": session_group,
        "export_dir": MODELS / "strings",
        "model": session_group.load(MODELS / "strings", 1),
    }
    failed, attempted = doctest.testmod(module, extraglobs=names)  # type: ignore[arg-type]
    assert attempted and not failed


def test_tests_that_the_table_of_defects_names() -> None:
    missing = []
    for line in (ROOT / "docs/defects.md").read_text().splitlines():
        if not line.startswith("|"):
            continue
        text = ""
        for code in re.findall(r"`([^`]+)`", line.rsplit("|", 2)[1]):
            path, _, name = code.partition(": ")
            if re.fullmatch(r"[\w./-]+\.(rs|c|cc|py|sh|hpp|h)", path):
                text = (ROOT / path).read_text() if (ROOT / path).exists() else ""
                missing += [] if text else [path]
            else:
                name = code
            name = name.split("::")[-1]
            is_name = re.fullmatch(r"\w+_\w+", name)
            missing += [code] if is_name and name not in text else []
    assert not missing


def test_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for readme in ("README.md", "python/README.md"):
        text = (ROOT / readme).read_text()
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        assert blocks
        names: dict[str, object] = {}
        for block in blocks:
            exec(compile(block, readme, "exec"), names)


def test_performance() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    [block] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    [expected] = re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    code = compile(block, "docs/performance.md", "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {"model_dir": str(MODELS / "noisy")})
    # The lines are wrapped to fit.
    assert printed.getvalue().split() == expected.split()


def test_serve() -> None:
    out = example("serve.py", str(MODELS / "wide_deep"))
    assert "800 requests" in out
    assert len(re.findall(r"^session \d: +\d+ requests, p50", out, re.MULTILINE)) == 4


def test_target() -> None:
    model = str(MODELS / "tf1_saved_model")
    one = example("target.py", model, "").splitlines()
    group = example("target.py", model, "session_group:4").splitlines()
    assert group == [*one, "a group of 4: policy thread"]


def example(name: str, *arguments: str) -> str:
    path = ROOT / "examples" / "python" / name
    return subprocess.run(
        [sys.executable, path, *arguments], check=True, capture_output=True, text=True
    ).stdout
