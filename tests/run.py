"""Runs all tests side by side; a few that failed and depend on time are run again alone, as `make test` does.

The machine may be slow or shared, and thousands of tests with real daemons wait for each other. A test with real processes
that fails beside others, and holds alone each time, says something about the machine, so it does not fail the run; its failure
stays in the output, for whoever looks after it. A test of pure code is never repeated, neither are many failures.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MOST = 3
"""Failures that are run again; more of them say that something is broken."""

TIMES = 2
"""Runs alone, each of which must hold."""

WITH_PROCESSES = (
    "tests/lab/",
    "tests/node/",
    "tests/apps/",
    "tests/sessions/",
    "tests/dataplane/kernel/",
    "tests/kernels/",
)
"""Beginnings of the names of tests with processes, sockets and namespaces."""

FAILED = 1  # pytest's exit code for "tests were collected and run, but some failed"


def may_repeat(failed: Sequence[str]) -> bool:
    """True if these tests, by their names, may be run again alone."""
    return 0 < len(failed) <= MOST and all(name.startswith(WITH_PROCESSES) for name in failed)


def failures(cache: Path) -> list[str]:
    """The names of the tests that failed in the last run with this pytest cache, in their order."""
    try:
        found = json.loads((cache / "v" / "cache" / "lastfailed").read_text())
    except FileNotFoundError:
        return []
    return [*found]


def run(arguments: Sequence[str], cache: Path) -> int:
    """Run pytest in a process of its own; return its exit code."""
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
    return subprocess.run(command, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Run pytest with these arguments, then what may be repeated; return the exit code of the whole."""
    with tempfile.TemporaryDirectory(prefix="locum-tests-") as folder:
        first = Path(folder) / "first"
        code = run(arguments, first)
        failed = failures(first)
        if code != FAILED or not may_repeat(failed):
            return code
        print(f"\n{len(failed)} failed beside other tests; each is run alone {TIMES} times:", flush=True)
        for name in failed:
            for time in range(TIMES):
                code = run(["-n", "0", "-q", name], Path(folder) / f"alone-{time}")
                if code:
                    print(f"{name} failed alone", flush=True)
                    return code
        print(f"Held alone, failed beside other tests (see above): {', '.join(failed)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
