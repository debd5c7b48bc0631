"""Lays the TensorFlow wheel of this Python out as a conventional C/C++ prefix.

    python scripts/lay-tensorflow.py PREFIX

PREFIX/include and PREFIX/lib hold links into the wheel, so nothing is copied; PREFIX/lib/pkgconfig
gets a tensorflow.pc. Reads the package's files without importing it, which would take seconds.
"""

import importlib.metadata
import importlib.util
import pathlib
import sys

PC = """\
prefix={prefix}
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: tensorflow
Description: TensorFlow's C and C++ libraries, from the stock wheel
Version: {version}
Cflags: -I${{includedir}} -D_GLIBCXX_USE_CXX11_ABI=1 -DEIGEN_MAX_ALIGN_BYTES=64
Libs: -L${{libdir}} -ltensorflow_cc -ltensorflow_framework
"""


def link(path: pathlib.Path, target: pathlib.Path) -> None:
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target)


def main() -> None:
    prefix = pathlib.Path(sys.argv[1]).resolve()
    # find_spec would import the parent of a dotted name only, so this does not run TensorFlow.
    package = pathlib.Path(importlib.util.find_spec("tensorflow").origin).parent
    distribution = next(
        d
        for name in ("tensorflow-cpu", "tensorflow", "tensorflow-intel")
        for d in importlib.metadata.distributions(name=name)
    )
    pkgconfig = prefix / "lib" / "pkgconfig"
    pkgconfig.mkdir(parents=True, exist_ok=True)
    link(prefix / "include", package / "include")
    for name in ("tensorflow_cc", "tensorflow_framework"):
        link(prefix / "lib" / f"lib{name}.so.2", package / f"lib{name}.so.2")
        link(prefix / "lib" / f"lib{name}.so", pathlib.Path(f"lib{name}.so.2"))
    (pkgconfig / "tensorflow.pc").write_text(
        PC.format(prefix=prefix, version=distribution.version)
    )
    print(f"TensorFlow {distribution.version} laid at {prefix}")


main()
