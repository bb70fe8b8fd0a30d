"""Lines exchanged with a program that was started with pipes."""

import select

from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until


def say(program: Program, line: str, *, answered: bool = True) -> str:
    """Write a line to a program; returns the line that it prints next."""
    assert program.process.stdin is not None
    program.process.stdin.write(line.encode() + b"\n")
    program.process.stdin.flush()
    return hear(program) if answered else ""


def hear(program: Program, patience: float = 10.0) -> str:
    """The next line of a program that was started with a pipe. Raises LabError when none comes."""
    output = program.process.stdout
    assert output is not None
    poller = select.poll()
    poller.register(output, select.POLLIN | select.POLLHUP)
    wait_until(f"{program.name} to say something", lambda: bool(poller.poll(0)), patience)
    line = output.readline().decode(errors="replace").strip()
    if not line:
        raise LabError(f"{program.name} said nothing more; {program.complaint()}")
    return line
