"""What Python says of the C ABI is what the header says."""

import ctypes
import re
from pathlib import Path

import pytest
from session_group import _library

HEADER = Path(__file__).parents[2] / "include" / "session_group.h"
SCALARS = {
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "double": ctypes.c_double,
    "bool": ctypes.c_bool,
    "void": None,
}
TABLE = {
    name: types
    for table in (_library._QUICK, _library._SLOW)
    for name, types in table.items()
    if not name.startswith("TF_")
}


def declarations() -> dict[str, tuple[str, list[str]]]:
    text = re.sub(r"//[^\n]*", "", HEADER.read_text())
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = {}
    for match in re.finditer(
        r"^([\w ]+[\w*] \*?|[\w ]+ \*?)(\w+)\(([^()]*)\);", text, re.MULTILINE
    ):
        result, name, arguments = match.groups()
        parts = [part.strip() for part in arguments.split(",")]
        found[name] = (result.strip(), [] if parts == ["void"] else parts)
    return found


def kind(declared: str, *, named: bool) -> object:
    """ctypes' type of a parameter, with its name, or of a result."""
    if "*" in declared or "Fn " in declared:
        return "pointer"
    words = declared.replace("const ", "").split()
    return SCALARS[" ".join(words[:-1] if named else words)]


def of_ctypes(kind: object) -> object:
    return "pointer" if kind in (ctypes.c_void_p, ctypes.c_char_p) else kind


def test_the_header_is_read() -> None:
    found = declarations()
    assert len(found) > 40 and set(TABLE) <= set(found)
    assert found["SessionGroup_SessionNum"] == (
        "int32_t",
        ["const SessionGroup *group"],
    )


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_function_has_the_types_of_the_header(name: str) -> None:
    result, parameters = declarations()[name]
    declared = [
        kind(result, named=False),
        *(kind(one, named=True) for one in parameters),
    ]
    assert [of_ctypes(one) for one in TABLE[name]] == declared
