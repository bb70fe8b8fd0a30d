"""The name of a node's freezer on this host, and the cgroups that such a freezer has made.

Several nodes of one name may share a kernel, in namespaces of their own: none may thaw another's processes.
"""

import os
import zlib
from pathlib import Path


def freezer_name(node: str, run_dir: Path) -> str:
    """The node's name with a part that distinguishes its run directory."""
    return f"{node}-{zlib.crc32(os.fsencode(run_dir.absolute())):08x}"


def cgroups_of(name: str, root: Path) -> list[Path]:
    """Every cgroup below `root` that the freezer of this name made, those of programs that are gone included."""
    prefix = f"locum-{name}-"
    return [
        Path(folder) / run_name
        for folder, names, _files in os.walk(root)
        for run_name in names
        if run_name.startswith(prefix)
    ]
