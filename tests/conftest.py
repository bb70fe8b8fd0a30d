"""For all tests: properties have no deadline, for the machine may be busy; what costs too much shows in the total.

A run draws the same examples every time, so that it says something about the change and not about luck. New examples
are looked for with HYPOTHESIS_PROFILE=explore, as `make test-all` does.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "locum", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "explore", parent=settings.get_profile("locum"), derandomize=False, max_examples=400
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "locum"))
