"""The scenarios, one file each, named after their figures."""

from locum.lab.scenario import Scenario
from locum.lab.scenarios.fig06 import Fig06

SCENARIOS: dict[str, type[Scenario]] = {scenario.name: scenario for scenario in (Fig06,)}
