"""Properties here have no deadline for one example: on a machine that is busy it would measure the machine."""

from hypothesis import HealthCheck, settings

settings.register_profile("locum", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("locum")
