"""Compile bpf/*.bpf.c with clang into the package: `python -m locum.dataplane.build`.

The wheel carries the object, so an installed package has nothing to build. Run from a source tree.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

OBJECTS = Path(__file__).parent / "objects"
BARE = "locum.bpf.c"
"""The source of two objects: the second has the programs for links without link-layer headers."""
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")


class BuildError(Exception):
    """Reason why compiling failed, in one line."""


def _objects(source: Path) -> Iterator[tuple[str, ...]]:
    """File, name of its object and definitions, of all objects that are made from a folder of sources."""
    for file in sorted(source.glob("*.bpf.c")):
        yield str(file), file.name.replace(".c", ".o")
        if file.name == BARE:
            yield str(file), "bare.bpf.o", "-DLOCUM_BARE"


def compile_objects(source: Path, target: Path, *, warnings: bool = True) -> list[Path]:
    """Compile every `*.bpf.c` of `source` into `target`; raises BuildError, also for a warning if `warnings`."""
    clang = shutil.which("clang")
    if clang is None:
        raise BuildError(
            "clang is missing and is needed to build the BPF programs: apt-get install clang libbpf-dev"
        )
    target.mkdir(parents=True, exist_ok=True)
    multiarch = sysconfig.get_config_var("MULTIARCH")
    headers = ("-idirafter", f"/usr/include/{multiarch}") if multiarch else ()
    built = []
    for file, name, *defined in _objects(source):
        output = target / name
        prefix = f"-ffile-prefix-map={source.parent}=."  # no path of the building machine in the object
        warned = WARNINGS if warnings else ("-w",)
        command = [clang, *FLAGS, *defined, *warned, prefix, *headers, "-c", file, "-o", str(output)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            hint = " (apt-get install libbpf-dev linux-libc-dev)" if "file not found" in result.stderr else ""
            raise BuildError(f"clang could not compile {file}{hint}:\n{result.stderr}")
        built.append(output)
    if not built:
        raise BuildError(f"no BPF programs in {source}")
    return built


def main() -> int:
    """Build into this package from the source tree that it is in."""
    source = Path(__file__).parents[3] / "bpf"
    try:
        for path in compile_objects(source, OBJECTS):
            print(path)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
