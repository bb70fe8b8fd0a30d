"""NAT traversal of a foreign agent that stands behind a NAT itself (RFC 3519 section 4.5)."""

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.registration import Options, Registration, UdpTunnelAnswer, UdpTunnelRequest
from locum.roles.actions import Action, SendRegistration
from locum.roles.mobile_ipv4.keepalives import DEFAULT_INTERVAL, write_keepalive
from locum.roles.nat import TraversalMode
from locum.roles.parts import Part


class AgentTraversal(Part):
    """A foreign agent's share (section 4.5), when it stands behind a NAT itself.

    It asks on behalf of its visitors, and keeps the one mapping that all tunnels to a home agent share. The answers to
    its keepalives go to a visitor, so it cannot tell when they cease; the visitor's next registration opens a new one.
    `visitors` gives a home address for each home agent that still serves one by such a tunnel.
    """

    def __init__(
        self,
        care_of_address: IPv4Address,
        mode: TraversalMode,
        interval: float | None,
        home_agents: Container[Addr],
        visitors: Callable[[], Mapping[IPv4Address, IPv4Address]],
    ) -> None:
        self._care_of_address = care_of_address
        self._mode = mode
        self._override = interval
        self._home_agents, self._visitors = home_agents, visitors
        self._mappings: dict[IPv4Address, tuple[float, float]] = {}  # interval, time of the next keepalive
        self._sequence = 0

    @property
    def enabled(self) -> bool:
        """The U bit of advertisements (section 3.4)."""
        return self._mode is not TraversalMode.OFF

    def fill(self, options: Options, registration: Registration, now: float) -> Options:
        """The options for the home agent with a request for a UDP tunnel; needs an association."""
        if not self.enabled or not registration.lifetime or registration.home_agent not in self._home_agents:
            return options
        return replace(options, udp=UdpTunnelRequest(forced=self._mode is TraversalMode.FORCE))

    def agreed(self, home_agent: IPv4Address, answer: UdpTunnelAnswer | None, now: float) -> bool:
        """True if the tunnel to that home agent is in UDP; the caller has checked the authentication."""
        if answer is None or not answer.accepted or not self.enabled:
            return False
        interval = self._override or float(answer.interval or DEFAULT_INTERVAL)
        self._mappings[home_agent] = (interval, now + interval)
        return True

    def timeout(self, *, now: float) -> list[Action]:
        """The keepalives that are due."""
        due = [(agent, interval) for agent, (interval, at) in self._mappings.items() if at <= now]
        visitors = self._visitors() if due else {}
        actions: list[Action] = []
        for home_agent, interval in due:
            if home_agent not in visitors:
                del self._mappings[home_agent]
                continue
            self._mappings[home_agent] = (interval, now + interval)
            self._sequence = (self._sequence + 1) & 0xFFFF
            message = write_keepalive(visitors[home_agent], home_agent, 0, self._sequence)
            actions.append(SendRegistration(message, home_agent, source=self._care_of_address))
        return actions

    def deadline(self) -> float | None:
        """Steady seconds of the next keepalive."""
        return min((at for _, at in self._mappings.values()), default=None)
