"""Plugin of pytest: the tests' data planes load the object that the variable MUTANT_OBJECT names."""

import os
from pathlib import Path

from locum.dataplane import plane

plane.OBJECT = Path(os.environ["MUTANT_OBJECT"])
