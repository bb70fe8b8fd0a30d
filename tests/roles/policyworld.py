"""A device, a foreign agent and a home agent that asks a policy server, on a virtual clock without delay or loss."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from random import Random

from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.forwarding import FORWARDING, BindingEntry, RemoveBinding
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration, ProfileHomesConfiguration
from locum.roles.home_agent.profile_homes import Homes
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.profile import Pool, Profile
from locum.roles.profile_requests import FetchProfile, OwnHomeAddress, ProfileEvent
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.mobile_ip.extensions import AuthKind, Nai
from locum.wire.mobile_ip.registration import Flag, RegistrationReply, RegistrationRequest
from tests.roles.packets import care_of, ordinary

HOA, OTHER = IPv4Address("10.50.0.9"), IPv4Address("10.50.0.10")
CONFIGURED = IPv4Address("10.50.0.50")
HA, AN1, AN3 = IPv4Address("10.5.0.1"), IPv4Address("10.1.0.1"), IPv4Address("10.3.0.1")
NOBODY = IPv4Address(0)
NAI = "device@example.org"
KEY = Association(300, b"k" * 16)
MAC = bytes.fromhex("020000000009")
START = 1_790_000_000.0
POOL = Pool("dynamic", IPv4Address("10.50.0.100"), IPv4Address("10.50.0.102"))
PREFIXES = (IPv4Network("10.50.0.0/24"), IPv6Network("2001:db8:50::/64"))
FULL = Profile(lifetime=600, home_address=HOA, association=KEY, default_care_of=AN3)
POOLED = Profile(lifetime=600, pool="dynamic", association=KEY)

Says = Callable[[FetchProfile], ProfileEvent | None]


class PolicyWorld:
    """`says` is the policy server: its answer to a question, None if it does not answer."""

    def __init__(self, says: Says, configuration: HomeAgentConfiguration | None = None) -> None:
        self.now, self.configuration = START, configuration or HomeAgentConfiguration(HA)
        self.says = says
        self.asked: list[FetchProfile] = []
        self.rows: dict[str, dict[tuple[str, str], a.Persist]] = {"ha": {}, "fa": {}, "mn": {}}
        self.counts: dict[str, int] = {}
        self.events: list[a.Emit] = []
        self.replies: list[RegistrationReply] = []
        self.owned: list[OwnHomeAddress] = []
        self.forwarding = ForwardingState()  # of the home agent
        self._due: deque[tuple[str, Callable[[], Sequence[a.Action]]]] = deque()
        self._last = 0
        self.start_home_agent()

    # Starting ----------------------------------------------------------------------------------------------------

    def start_home_agent(self) -> None:
        """Start, or start again with the rows that were kept."""
        homes = Homes(ProfileHomesConfiguration((CONFIGURED,), PREFIXES, (POOL,)))
        mobile = Mobile(CONFIGURED, replace(KEY, spi=900))
        self.home = HomeAgent(self.configuration, [mobile], {}, Random(7), homes)
        self.forwarding = ForwardingState()
        self.perform("ha", self.home.restore(list(self.rows["ha"].values()), now=self.now))

    def start_device(self, **changes: object) -> None:
        """A foreign agent, and a device behind it that has a NAI and no home address."""
        configuration = ForeignAgentConfiguration(AN1, (AccessLink("radio", AN1),))
        self.foreign = ForeignAgent(configuration, {}, {}, (), Random(8))
        own = MobileNodeConfiguration(NOBODY, HA, ("radio",), KEY, nai=NAI, lifetime=300)
        self.device = RegistrationClient(replace(own, **changes), {}, Random(9))  # type: ignore[arg-type]
        self.perform("fa", self.foreign.restore([], now=self.now))
        self.perform("mn", self.device.restore(list(self.rows["mn"].values()), now=self.now))
        for name, role in (("fa", self.foreign), ("mn", self.device)):
            self.perform(name, role.happened(a.LinkUp("radio"), now=self.now))
        self.advance(0.0)

    # Running -----------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Advance the time; every role's deadlines are called."""
        end = self.now + seconds
        roles: dict[str, a.Role] = {"ha": self.home}
        if hasattr(self, "device"):
            roles |= {"fa": self.foreign, "mn": self.device}
        steps = 0
        while True:
            self.settle()
            due = [(at, name) for name, role in roles.items() if (at := role.deadline()) is not None]
            if not due or min(due)[0] > end:
                break
            at, name = min(due)
            steps += 1
            assert steps < 10_000, f"{name} is always due"
            self.now = max(self.now, at)
            self.perform(name, roles[name].timeout(now=self.now))
        self.now = end

    def settle(self) -> None:
        """Deliver pending messages."""
        steps = 0
        while self._due:
            steps += 1
            assert steps < 1_000, "they do not stop talking"
            name, deliver = self._due.popleft()
            self.perform(name, deliver())

    def ask(
        self,
        home_address: IPv4Address = HOA,
        nai: str | None = None,
        key: Association = KEY,
        lifetime: int = 300,
    ) -> int:
        """A device with a co-located care-of address registers; the code of the last reply, -1 for none."""
        self.replies.clear()
        message = self.request(home_address, nai, key, lifetime)
        source = Source(AN1, 434, "core")
        self.perform("ha", self.home.receive(message, source, now=self.now))
        self.settle()
        return int(self.replies[-1].code) if self.replies else -1

    def request(
        self, home_address: IPv4Address, nai: str | None, key: Association = KEY, lifetime: int = 300
    ) -> bytes:
        """The bytes of a signed request."""
        self._last = max(self._last + 1, ntp64(self.now))
        extensions = () if nai is None else (Nai(nai),)
        care_of = IPv4Address("10.1.0.77") if lifetime else home_address
        flags = Flag.T | Flag.D
        whole = RegistrationRequest(lifetime, home_address, HA, care_of, self._last, flags, extensions)
        return signed(whole.encode(), AuthKind.MN_HA, key)

    # Performing --------------------------------------------------------------------------------------------------

    def perform(self, name: str, actions: Sequence[a.Action]) -> None:
        for action in actions:
            self._perform(name, action)

    def _perform(self, name: str, action: a.Action) -> None:
        match action:
            case FetchProfile():
                self.asked.append(action)
                if (event := self.says(action)) is not None:
                    self.answer(event)
            case a.Persist():
                self.rows[name][action.table, action.key] = action
            case a.Forget():
                self.rows[name].pop((action.table, action.key), None)
            case a.Emit():
                self.events.append(action)
            case a.Count():
                self.counts[action.reason] = self.counts.get(action.reason, 0) + 1
            case RemoveBinding(address):
                assert address in self.bindings
                self.forwarding.perform(action)
            case _ if name == "ha" and type(action) in FORWARDING:
                self.forwarding.perform(action)
            case OwnHomeAddress():
                self.owned.append(action)
            case a.Reply() | a.SendRegistration() | a.Advertise() | a.Solicit():
                self._send(name, action)

    def answer(self, event: ProfileEvent) -> None:
        """The policy server answers."""
        self._due.append(("ha", lambda: self.home.happened(event, now=self.now)))

    def _send(self, name: str, action: a.Reply | a.SendRegistration | a.Advertise | a.Solicit) -> None:
        message = action.message
        if name == "ha":
            self.replies.append(RegistrationReply.decode(message))
        if not hasattr(self, "device"):
            return
        on_link = Source(AN1, 434, "radio", b"\2" * 6)
        by_device = Source(self.device.configuration.home_address, 434, "radio", MAC)
        if name == "mn":
            self._due.append(("fa", lambda: self.foreign.receive(message, by_device, now=self.now)))
        elif isinstance(action, a.SendRegistration):
            relayed = Source(AN1, 434, "core")
            self._due.append(("ha", lambda: self.home.receive(message, relayed, now=self.now)))
        elif name == "ha":
            self._due.append(
                ("fa", lambda: self.foreign.receive(message, Source(HA, 434, "core"), now=self.now))
            )
        else:
            self._due.append(("mn", lambda: self.device.receive(message, on_link, now=self.now)))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def care_of(self, home_address: IPv4Address = HOA) -> list[Addr]:
        """Destinations of packets that match no rule."""
        return care_of(self.forwarding, ordinary(home_address))

    @property
    def bindings(self) -> Mapping[Addr, BindingEntry]:
        return self.forwarding.bindings
