"""Copies standard input to standard output at so many bytes a second, at full speed once a file exists.

`python -m locum.lab.programs.slowly RATE FILE`
"""

import os
import sys
import time
from pathlib import Path

_STEPS = 20
"""Reads a second."""
_BLOCK = 1 << 16


def copy(rate: int, gate: Path) -> None:
    """Until the end of the input. A pause that takes longer is not made up for."""
    while block := os.read(0, _BLOCK if gate.exists() else rate // _STEPS):
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        if not gate.exists():
            time.sleep(len(block) / rate)


if __name__ == "__main__":
    copy(int(sys.argv[1]), Path(sys.argv[2]))
