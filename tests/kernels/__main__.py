"""`python -m tests.kernels [ARGUMENTS]`: pytest with these arguments on Debian 12's kernel; exits as pytest does."""

import sys

from tests.kernels.kernel import debian_kernel
from tests.kernels.machine import pytest_on

if __name__ == "__main__":
    outcome = pytest_on(debian_kernel(), sys.argv[1:], listener=lambda line: print(line, flush=True))
    sys.exit(1 if outcome.code is None else outcome.code)
