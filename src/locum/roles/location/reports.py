"""Reports of a role to a location server (1212): the last one about a device counts, and is sent again until it is answered.

Access nodes and devices use it alike. It must not know why a report is made.
"""

from dataclasses import dataclass, replace
from itertools import count

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, NoAnswer, WallClockStepped
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.paging.location import PATH, Location1212, encode_1212
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, decode_status_answer
from locum.wire.errors import WireError

ANSWER_TIMEOUT = 5.0
"""Seconds."""
RETRY_FIRST = 1.0
RETRY_MAX = 60.0
"""Seconds between two attempts: the first, doubled up to the last."""
MAX_ATTEMPTS = 10
"""Attempts for one report, about six minutes; the next report begins again."""
FIRST_REQUEST = 1 << 56
"""Above the numbers that a role gives its other requests. The part comes before others that have such numbers."""
ASLEEP_LIFETIME = 7 * 86400
"""Seconds for which a device that sleeps is said to be where it fell asleep; the server may grant less."""

_PASSING = (PagingStatus.BUSY, PagingStatus.LIMIT)  # worth asking again


@dataclass(slots=True)
class _Report:
    location: Location1212
    number: int
    attempts: int = 0


class LocationReports(Part):
    """Pending reports to one server; without one, none is made."""

    def __init__(self, server: Addr | None) -> None:
        self.server = server
        self._reports: dict[Addr, _Report] = {}  # by the first home address
        self._asked: dict[int, Addr] = {}
        self._due: Deadlines[Addr] = Deadlines()
        self._waiting: list[Location1212] = []  # for the next timeout
        self._numbers = count(FIRST_REQUEST)
        self._ahead = 0.0
        self._last_sent = 0

    def report(self, location: Location1212, *, now: float) -> list[Action]:
        """Report the location as of now: `sent` is set here. An earlier report about the device ends."""
        if self.server is None:
            return []
        self._last_sent = max(self._last_sent + 1, round((now + self._ahead) * 1000))
        report = _Report(replace(location, sent=self._last_sent), next(self._numbers))
        home_address = location.home_addresses[0]
        self._drop(home_address)
        self._reports[home_address] = report
        return self._ask(report)

    def report_soon(self, location: Location1212) -> None:
        """The same at the next timeout, which is due at once."""
        if self.server is not None:
            self._waiting.append(location)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The answer to a report; None for anything else."""
        if isinstance(event, WallClockStepped):
            self._ahead = event.ahead  # of interest to others too
            return None
        if not isinstance(event, Answered | NoAnswer) or event.request < FIRST_REQUEST:
            return None
        home_address = self._asked.pop(event.request, None)
        if home_address is None:
            return []  # a later report has taken its place
        report = self._reports[home_address]
        if isinstance(event, NoAnswer):
            return [Count("location-report-unanswered"), *self._again(report, now)]
        try:
            answer = decode_status_answer(event.body)
        except WireError as error:
            return [Count(f"location-report-{error.reason}"), *self._again(report, now)]
        if answer.status in _PASSING:
            return [Count("location-report-busy"), *self._again(report, now)]
        self._drop(home_address)
        return [] if answer.status is PagingStatus.OK else self._refused(report, answer)

    def timeout(self, *, now: float) -> list[Action]:
        """Send what waits, and what was not answered once more."""
        waiting, self._waiting = self._waiting, []
        actions = [action for location in waiting for action in self.report(location, now=now)]
        for home_address in self._due.due(now):
            report = self._reports.get(home_address)
            if report is not None:
                report.number = next(self._numbers)
                actions += self._ask(report)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return 0.0 if self._waiting else self._due.next()

    def _ask(self, report: _Report) -> list[Action]:
        assert self.server is not None
        location = report.location
        report.attempts += 1
        self._asked[report.number] = location.home_addresses[0]
        detail: dict[str, JSON] = {
            "to": str(self.server),
            "access_node": None if location.access_node is None else str(location.access_node),
            "state": location.state.name.lower(),
            "lifetime": location.lifetime,
        }
        return [
            Ask(report.number, self.server, PATH, encode_1212(location), ANSWER_TIMEOUT),
            Emit("sent", PATH, location.home_addresses[0], None, detail),
        ]

    def _again(self, report: _Report, now: float) -> list[Action]:
        home_address = report.location.home_addresses[0]
        if report.attempts >= MAX_ATTEMPTS:
            self._drop(home_address)
            return [Emit("location-report-failed", PATH, home_address, None, {"reason": "no answer"})]
        wait = min(RETRY_FIRST * 2 ** (report.attempts - 1), RETRY_MAX)
        self._due.set(home_address, now + wait)
        return []

    def _refused(self, report: _Report, answer: StatusAnswer) -> list[Action]:
        word = answer.status.name.lower().replace("_", "-")
        detail: dict[str, JSON] = {"reason": word, "text": answer.text}
        home_address = report.location.home_addresses[0]
        failed = Emit("location-report-failed", PATH, home_address, None, detail)
        return [Count(f"location-report-{word}"), failed]

    def _drop(self, home_address: Addr) -> None:
        report = self._reports.pop(home_address, None)
        if report is not None:
            self._asked.pop(report.number, None)
            self._due.cancel(home_address)
