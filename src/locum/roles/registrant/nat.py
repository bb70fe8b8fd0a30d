"""NAT traversal of a registrant with a co-located care-of address (RFC 3519 section 4.4)."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.action_values.registration import Options, ReceivedAnswer, UdpTunnelAnswer, UdpTunnelRequest
from locum.roles.actions import Action, Emit, SendRegistration
from locum.roles.mobile_ipv4.keepalives import DEFAULT_INTERVAL
from locum.roles.nat import KeepAlive, TraversalMode
from locum.roles.registrant.attachment import Attachment


class MobileTraversal:
    """A mobile node's share, with a co-located care-of address: rides in its registrations and keeps the tunnel open.

    `interval` in seconds overrides the home agent's value.
    """

    def __init__(
        self,
        home_address: IPv4Address,
        home_agent: IPv4Address,
        mode: TraversalMode,
        interval: float | None,
        randomness: Randomness,
    ) -> None:
        self._home_address, self._home_agent = home_address, home_agent
        self._mode = mode
        self._override = interval
        self._tunnel: UdpTunnelAnswer | None = None
        self._keep_alive = KeepAlive(home_address, home_agent, randomness)

    def at_home(self, home_address: IPv4Address) -> None:
        """The mobile node's home address from now on."""
        self._home_address = home_address
        self._keep_alive.home_address = home_address

    def served_by(self, home_agent: IPv4Address) -> None:
        """The mobile node's home agent from now on."""
        self._home_agent = self._keep_alive.home_agent = home_agent

    @property
    def udp(self) -> bool:
        """True if the tunnel is in UDP, by the home agent's last reply."""
        return self._tunnel is not None

    # As a part of registrations

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """Section 4.4: with a co-located care-of address only, and where no agent stands between (section 4.11)."""
        if self._mode is TraversalMode.OFF or not attachment.direct or not lifetime:
            return options
        return replace(options, udp=UdpTunnelRequest(forced=self._mode is TraversalMode.FORCE))

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """Without an extension in it the home agent knows nothing of UDP tunnels (section 4.4)."""
        if not reply.accepted:
            return ()
        said = reply.answer.udp if attachment.direct and reply.lifetime else None
        found = said if said is not None and said.accepted else None
        before, self._tunnel = self._tunnel, found if self._mode is not TraversalMode.OFF else None
        if (before is None) is (self._tunnel is None):
            return ()
        detail: dict[str, JSON] = {"udp": self.udp, "forced": bool(self._tunnel and self._tunnel.forced)}
        return (Emit("nat-traversal", None, self._home_address, None, detail),)

    # In time

    def settled(self, registered: bool, now: float) -> None:
        """A registration has been answered: keepalives are counted from here, or there are none."""
        if self._tunnel is None or not registered:
            self._keep_alive.stop()
        else:
            self._keep_alive.start(self._override or self._tunnel.interval or DEFAULT_INTERVAL, now)

    def answered(self, identifier: int, sequence: int, now: float) -> None:
        """An echo reply came to the home address from the home agent."""
        self._keep_alive.answered(identifier, sequence, now)

    def lost(self, now: float) -> bool:
        """True if the NAT seems to have dropped the tunnel. Reported once: register anew."""
        lost = self._keep_alive.lost(now)
        if lost:
            self._keep_alive.stop()
        return lost

    def timeout(self, attachment: Attachment, now: float) -> list[Action]:
        """The due keepalive, on the registration's path and from its port."""
        message = self._keep_alive.timeout(now)
        if message is None:
            return []
        return [SendRegistration(message, self._home_agent, link=attachment.link, source=attachment.care_of)]

    def deadline(self) -> float | None:
        """Steady seconds of the next thing to do."""
        return self._keep_alive.deadline()

    # Rows

    def to_row(self) -> JSON:
        """The part of a row; None without a UDP tunnel."""
        return None if self._tunnel is None else [self._tunnel.forced, self._tunnel.interval]

    def from_row(self, row: JSON, now: float) -> None:
        """From part of a row of our own; raises ValueError for anything else."""
        if row is None:
            return
        if not isinstance(row, Sequence) or len(row) != 2 or not isinstance(row[1], int):
            raise ValueError(f"{row!r} is no UDP tunnel")
        self._tunnel = UdpTunnelAnswer(True, bool(row[0]), row[1])
        self.settled(True, now)
