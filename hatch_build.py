"""Build hook: compiles the BPF programs, so that the wheel carries them and an installation needs no clang.

`locum/dataplane/build.py` does the work; it is loaded by its path because the package is not installed yet.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ObjectsHook(BuildHookInterface[Any]):
    """Adds src/locum/dataplane/objects/*.o to the wheel, and to the tree for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("build", root / "src/locum/dataplane/build.py")
        assert spec is not None and spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        try:
            objects = build.compile_objects(root / "bpf", root / "src/locum/dataplane/objects")
        except build.BuildError as error:
            sys.exit(str(error))
        build_data["artifacts"].extend(str(path.relative_to(root)) for path in objects)
