"""For all tests: properties have no deadline, for the machine may be busy; what costs too much shows in the total."""

from hypothesis import HealthCheck, settings

settings.register_profile("locum", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("locum")
