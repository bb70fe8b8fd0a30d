"""The parts of a running node that its control socket reads and commands."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # roles that this host does not play are not imported
    from locum.dataplane.plane import DataPlane
    from locum.node.apps.attended import AttendedStandIn as StandIn
    from locum.node.clock import SteadyClock
    from locum.node.coap.exchanges import Exchanges
    from locum.node.coap.learnt_associations import LearntAssociations
    from locum.node.config.settings import Settings
    from locum.node.driver import Driver
    from locum.node.events import EventStream
    from locum.node.host.beside import Beside
    from locum.node.plane.forwarder import Forwarder
    from locum.node.sessions.device import SessionCapture
    from locum.node.sessions.replaying import Replaying
    from locum.node.tables import HostStore
    from locum.node.wireguard.service import WireGuard


class Suspends(Protocol):
    """Suspends of the host, as a device follows them."""

    def status(self) -> dict[str, Any]:
        """Tell whether they are followed, and the connectivity by the network manager."""


class NodeView(Protocol):
    """A node as the answers on its control socket see it."""

    @property
    def settings(self) -> "Settings":
        """The configuration."""

    @property
    def clock(self) -> "SteadyClock":
        """The clock of lifetimes and timers."""

    @property
    def started_at(self) -> float:
        """The steady seconds at which the node was started."""

    @property
    def events(self) -> "EventStream":
        """The events and their counters."""

    @property
    def driver(self) -> "Driver":
        """The roles and their driver."""

    @property
    def host_store(self) -> "HostStore":
        """The store of this host."""

    @property
    def plane(self) -> "DataPlane":
        """The data plane."""

    @property
    def forwarder(self) -> "Forwarder":
        """The changes of forwarding on their way to the data plane."""

    @property
    def exchanges(self) -> "Exchanges":
        """The CoAP exchanges with other nodes."""

    @property
    def learnt(self) -> "LearntAssociations | None":
        """The associations from the policy server, at a stand-in that asks one."""

    @property
    def session_capture(self) -> "SessionCapture | None":
        """The live sessions of a device that has a stand-in."""

    @property
    def replaying(self) -> "Replaying | None":
        """The connections that come to programs of a device with its return."""

    @property
    def stand_in(self) -> "StandIn | None":
        """The sessions that are held, at a stand-in."""

    @property
    def moving(self) -> "Suspends | None":
        """Suspends of the host, at a device with a stand-in."""

    @property
    def wireguard(self) -> "WireGuard | None":
        """WireGuard below Mobile IP, if the node has `[wireguard]`."""

    @property
    def beside(self) -> "Beside":
        """Other programs of the host, and settings of theirs that are in the way."""

    def interface_states(self) -> dict[str, str]:
        """Each configured interface as "up", "down" or "absent"."""
