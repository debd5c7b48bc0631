"""What pyproject.toml can't say: the wheel's tag, and which TensorFlow the extras name."""

import pathlib
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class Tag(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Python calls the library through ctypes, so any version of it does.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"


class Extras(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        built_for = pathlib.Path(self.root, "../target/python/tensorflow_version.txt")
        minor = ".".join(built_for.read_text().split(".")[:2])
        metadata["optional-dependencies"] = {
            name: [f"{name} ~= {minor}.0"] for name in ("tensorflow", "tensorflow-cpu")
        }
