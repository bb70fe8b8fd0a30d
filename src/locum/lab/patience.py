"""Time limits of the lab for expected events, on a machine that has other work as well.

LOCUM_LAB_PATIENCE is a factor on every such wait. A wait that ends well is not longer for it.
"""

import os

FACTOR = float(os.environ.get("LOCUM_LAB_PATIENCE", "1"))


def patient(seconds: float) -> float:
    """Return the seconds after which the lab gives up what takes `seconds` on a quiet machine at most."""
    return FACTOR * seconds
