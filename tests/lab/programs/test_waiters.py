"""The lab's own programs by themselves: each waiting method notices the last line, and ends there."""

import subprocess
import sys
from pathlib import Path

import pytest

from locum.lab.programs.stage import Stage
from locum.lab.programs.stock import STOCK
from locum.lab.programs.waiters import KINDS

PORT = 60_001
ALONE = ["unshare", "--net", "sh", "-c"]
"""A network namespace that ends with the command."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_waiting_method_ends_with_the_last_line(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lab = f"{sys.executable} -m locum.lab.programs"
    count = 4 if kind == "threads" else 1
    script = (
        f"ip link set lo up; (echo before; sleep 0.3; echo asleep) | {lab}.teller {PORT} {count} & "
        f"until ss -Htln | grep -q {PORT}; do sleep 0.02; done; exec {lab}.waiters {kind} 127.0.0.1 {PORT} {out}"
    )
    done = subprocess.run([*ALONE, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == "before\nasleep\n"


def test_a_slow_copy_keeps_its_pace_until_the_gate_opens(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = [sys.executable, "-m", "locum.lab.programs.slowly", "2000", str(gate)]
    copying = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert copying.stdin is not None and copying.stdout is not None
    copying.stdin.write(bytes(40_000))
    copying.stdin.close()
    assert len(copying.stdout.read(500)) == 500
    assert copying.poll() is None, "20 seconds of bytes are still to come"
    gate.touch()
    assert len(copying.stdout.read()) == 39_500
    assert copying.wait(30) == 0


def test_process_starts_under_a_chosen_number_if_free() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, "-m", "locum.lab.programs.reborn"]
    show = ["sh", "-c", "echo $$"]
    born = subprocess.run([*command, str(gone.pid), *show], capture_output=True, text=True)
    assert sorted(born.stdout.split()) == sorted([str(gone.pid), "born"])
    taken = subprocess.run([*command, "1", *show], capture_output=True, text=True)
    assert taken.returncode == 1 and taken.stdout.strip() == "File exists"


def test_every_stock_program_has_files_of_its_own() -> None:
    assert len({Stage.base(program) for program in STOCK}) == len(STOCK)
