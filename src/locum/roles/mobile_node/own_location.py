"""Reports of a device to a location server (1212, P6): when it moves, falls asleep, or is awake again."""

from collections.abc import Callable, Sequence

from locum.roles.actions import Action, Event, Persist
from locum.roles.location.reports import ASLEEP_LIFETIME, LocationReports
from locum.roles.mobile_node.states import ComingUp, Down, GoingDown, SleepState
from locum.roles.parts import Part, Parts
from locum.roles.registrant.attachment import Outcome, RegistrationAccepted
from locum.roles.registrant.registrant import RegistrationClient
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.provision import MAX_NODE_ID
from locum.wire.control.paging.way import Way

MARGIN = 10
"""Seconds that an entry outlives the registration: a renewal may be on its way."""


class OwnLocation(Part):
    """Of one device; without a server it does nothing."""

    def __init__(self, mobile: RegistrationClient, way: Callable[[], Way | None] = lambda: None) -> None:
        """`way`: to reach the device while it sleeps."""
        self._way = way
        configuration = mobile.configuration
        self._mobile = mobile
        self._reports = LocationReports(configuration.location_server)
        self._parts = Parts(self._reports)
        self._node_id = configuration.nai or ""
        self._asleep = False
        self._due = False
        self._ended = False  # it has deregistered

    def entered(self, state: SleepState) -> None:
        """Handle a new state: a device that is falling asleep says so while it can."""
        asleep = isinstance(state, GoingDown | Down | ComingUp)
        if asleep is not self._asleep:
            self._asleep = asleep
            self._due = self._reports.server is not None

    def outcome(self, outcome: Outcome) -> None:
        """Handle an outcome of the registration."""
        if isinstance(outcome, RegistrationAccepted):
            self._ended = not outcome.lifetime
            self._due = self._reports.server is not None

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Start; nothing is kept in the store."""
        return self._parts.restore(rows, now=now)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers to reports."""
        return self._parts.happened(event, now=now)

    def timeout(self, *, now: float) -> list[Action]:
        """Report what is due."""
        actions = self._parts.timeout(now=now)
        if not self._due:
            return actions
        self._due = False
        location = self._location()
        return actions if location is None else [*actions, *self._reports.report(location, now=now)]

    def deadline(self) -> float | None:
        """Steady seconds; what is due is due at once."""
        return 0.0 if self._due else self._parts.deadline()

    def _location(self) -> Location1212 | None:
        """The present location; None: it is not known, and an earlier report stands."""
        registered = self._mobile.registered
        homes = self._mobile.configuration.home_addresses
        node_id = self._node_id if len(self._node_id) <= MAX_NODE_ID else ""
        uris = self._mobile.configuration.sip_uris
        state = DeviceState.ASLEEP if self._asleep else DeviceState.AWAKE
        if registered is None:
            return Location1212(homes, 0, 0, node_id, uris, state=state) if self._ended else None
        attachment = registered.attachment
        return Location1212(
            homes,
            ASLEEP_LIFETIME if self._asleep else registered.lifetime + MARGIN,
            0,
            node_id,
            uris,
            None if attachment.colocated else attachment.care_of,
            attachment.care_of,
            self._way(),
            state,
        )
