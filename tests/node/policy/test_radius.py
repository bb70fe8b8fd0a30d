"""The RADIUS client against a real FreeRADIUS with the configuration that docs/policy-server.md prints, and against
servers that misbehave (features R3, C9)."""

import asyncio
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from pyrad.packet import AccessReject, AuthPacket

from locum.lab.programs.radius.freeradius import DICTIONARY, RADIUSD
from locum.node.coap.learnt_associations import AssociationRefused, AssociationUnavailable
from locum.node.config.policy_settings import PolicyServer, PolicySettings
from locum.node.events import EventStream
from locum.node.policy.profile_attributes import (
    ProfileError,
    dictionary,
    fetched_entries,
    grant_of,
    profile_of,
)
from locum.node.policy.radius import RadiusClient
from locum.roles import actions as do
from locum.roles.action_values.flows import FilterVerdict, RuleVerdict
from locum.roles.paging.events import FIRST_PUSHED
from locum.roles.profile import Profile
from locum.roles.profile_requests import (
    EntriesFetched,
    FetchProfile,
    ProfileFetched,
    ProfileRefused,
    ProfileUnavailable,
)
from locum.roles.rules import PROFILE
from locum.security.association import AaaAssociation, Algorithm, Replay

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "policy-server.md").read_text()
SECRET = b"replace-this-by-32-random-letters"
LOOPBACK = IPv4Address("127.0.0.1")
ALICE, GUEST = "alice@example.org", "guest@example.org"


def printed(name: str) -> str:
    """A file of the page."""
    found = re.search(rf"^```{re.escape(name)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


class Stream:
    """Messages of the client to the node."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kinds: list[str] = []

    def count(self, reason: str) -> None:
        self.counts[reason] += 1

    def emit(self, kind: str, **_: Any) -> None:
        self.kinds.append(kind)


class Client:
    """The client, asked one thing at a time."""

    def __init__(
        self,
        *ports: int,
        secret: bytes = SECRET,
        timeout: float = 0.3,
        dead_time: float = 30.0,
        own: IPv4Address = LOOPBACK,
    ) -> None:
        servers = tuple(PolicyServer(LOOPBACK, port, secret) for port in ports)
        settings = PolicySettings(servers, "ha", timeout, 1, dead_time, None)
        self.stream, self.answers = Stream(), asyncio.Queue[do.Event]()
        stream = cast("EventStream", self.stream)
        self.client = RadiusClient(settings, own, stream, lambda _, event: self.answers.put_nowait(event))

    async def fetch(self, nai: str | None = ALICE, home_address: IPv4Address | None = None) -> Any:
        self.client.handlers("home_agent")[FetchProfile](FetchProfile(7, nai, home_address))
        async with asyncio.timeout(30):
            answer: Any = await self.answers.get()
        assert answer.request == 7
        return answer


@asynccontextmanager
async def client(*ports: int, **options: Any) -> AsyncIterator[Client]:
    made = Client(*ports, **options)
    await made.client.open()
    try:
        yield made
    finally:
        await made.client.close()


# A real server ------------------------------------------------------------------------------------------------------


def test_the_lab_runs_the_configuration_that_is_printed() -> None:
    assert printed("radiusd.conf") == RADIUSD and printed("dictionary") == DICTIONARY


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def freeradius(folder: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """FreeRADIUS with the page's files; only its port and the addresses of its clients are this machine's."""
    port = free_port()
    (folder / "radiusd.conf").write_text(printed("radiusd.conf").replace("port = 1812", f"port = {port}"))
    (folder / "clients.conf").write_text(printed("clients.conf").replace("192.0.2.1", "127.0.0.0/8"))
    (folder / "dictionary").write_text(printed("dictionary"))
    (folder / "users").write_text(printed("users").replace("Address == 10.0.0.2", f"Address == {LOOPBACK}"))
    (folder / "dictionary.locum").write_bytes(
        files("locum.node.policy").joinpath("dictionary.locum").read_bytes()
    )
    program = subprocess.Popen(
        ["/usr/sbin/freeradius", "-f", "-x", "-l", "stdout", "-d", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert program.stdout is not None
        said = []
        for line in program.stdout:
            said.append(line)
            if "Ready to process requests" in line:
                break
        else:
            pytest.fail("".join(said))
        yield port, program
    finally:
        program.kill()
        program.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of one that answers."""
    with freeradius(tmp_path_factory.mktemp("freeradius")) as (port, _):
        yield port


async def test_profile_has_all_attributes_of_the_page(server: int) -> None:
    async with client(server) as asking:
        answer = await asking.fetch()
    assert isinstance(answer, ProfileFetched)
    profile = answer.profile
    assert (profile.lifetime, profile.pool) == (600, None)
    assert (profile.home_address, profile.home_address_v6) == (
        IPv4Address("203.0.113.4"),
        IPv6Address("2001:db8:113::4"),
    )
    assert profile.association is not None
    assert (profile.association.spi, profile.association.key) == (1000, bytes(range(16)))
    assert profile.default_care_of == IPv4Address("198.51.100.3")
    (stand_in,) = profile.stand_ins
    assert (stand_in.name, str(stand_in.address), stand_in.association.spi) == ("proxy", "10.0.0.2", 1100)
    assert stand_in.association.key == bytes(range(16, 32))
    assert [(rule.identifier, rule.verdict, rule.to, rule.owner) for rule in profile.rules] == [
        (10, RuleVerdict.DROP, (), PROFILE),
        (11, RuleVerdict.FORWARD, ("proxy", "mn"), PROFILE),
    ]
    assert [rule.verdict for rule in profile.to_visitor.rules] == [FilterVerdict.DROP] * 2
    assert profile.from_visitor.idle
    assert [(rule.identifier, rule.verdict) for rule in profile.paging.rules] == [
        (1, FilterVerdict.DROP),
        (1, FilterVerdict.DROP),
        (2, FilterVerdict.ALLOW),
        (2, FilterVerdict.ALLOW),
    ]
    assert profile.paging.otherwise is FilterVerdict.ALLOW


async def test_a_guest_comes_from_a_pool(server: int) -> None:
    async with client(server) as asking:
        answer = await asking.fetch(GUEST)
    assert answer.profile.pool == "guests" and answer.profile.lifetime is None
    association = answer.profile.association
    assert (association.algorithm, association.replay) == (Algorithm.HMAC_MD5, Replay.NONCE)


async def test_a_key_is_for_the_aaa_server(server: int) -> None:
    async with client(server) as asking:
        answer, guest = await asking.fetch("keyless@example.org"), await asking.fetch(GUEST)
    assert isinstance(answer.profile.association, AaaAssociation)
    assert not isinstance(guest.profile.association, AaaAssociation)
    assert answer.profile.association.algorithm is Algorithm.HMAC_SHA_1
    assert Profile.from_row(answer.profile.to_row()) == answer.profile


STAND_IN, HOME = ip_address("10.0.0.2"), IPv4Address("203.0.113.4")


async def test_a_stand_in_gets_its_association_with_a_device(server: int) -> None:
    async with client(server) as asking:
        grant = await asking.client.association(STAND_IN, HOME)
    own = grant.association
    assert (own.peer, own.sender_id, own.recipient_id) == (HOME, b"\1\2", b"\1\1")
    assert (own.secret, own.salt, grant.lifetime) == (bytes(range(0x30, 0x40)), b"", 600)
    event = asking.answers.get_nowait()
    assert isinstance(event, EntriesFetched) and event.home_address == HOME
    assert event.change.version == 3 and event.change.entries is not None
    assert own.home_addresses == (HOME, IPv6Address("2001:db8:113::4"))
    assert not own.may_trigger and not own.access_node
    assert b"0123456789".hex() not in repr(own)


def with_event(*more: Any) -> bytes:
    """An Access-Accept for a stand-in with an entry of an event table."""
    request = AuthPacket(id=1, secret=SECRET, authenticator=bytes(16), dict=dictionary(None))
    return reply(request, Locum_Event='id = 5, kind = "new"', **dict(more))


def test_entries_of_a_profile_need_a_version() -> None:
    request = AuthPacket(id=1, secret=SECRET, authenticator=bytes(16), dict=dictionary(None))
    change = fetched_entries(request.CreateReply(packet=with_event(("Locum_Version", 3))))
    assert change is not None and change.version == 3 and change.entries is not None
    assert [entry.identifier for entry in change.entries] == [FIRST_PUSHED + 5]
    with pytest.raises(ProfileError, match="needs Locum-Version"):
        fetched_entries(request.CreateReply(packet=with_event()))
    bad = reply(request, Locum_Event="id = 5", Locum_Version=3)
    with pytest.raises(ProfileError, match="kind"):
        fetched_entries(request.CreateReply(packet=bad))
    assert fetched_entries(request.CreateReply(packet=reply(request, Locum_Version=3))) is None


async def test_another_stand_in_and_another_node_get_none(server: int) -> None:
    async with client(server) as asking:
        with pytest.raises(AssociationRefused, match=r"10\.0\.0\.3"):
            await asking.client.association(ip_address("10.0.0.3"), HOME)
        with pytest.raises(AssociationRefused, match="no such mobile node"):
            await asking.client.association(STAND_IN, IPv4Address("203.0.113.5"))
    async with client(server, own=IPv4Address("127.0.0.2")) as asking:
        with pytest.raises(AssociationRefused, match="no such mobile node"):
            await asking.client.association(STAND_IN, HOME)
    async with client(free_port()) as asking:
        with pytest.raises(AssociationUnavailable):
            await asking.client.association(STAND_IN, HOME)


async def test_unknown_nai_is_refused_with_the_servers_message(server: int) -> None:
    async with client(server) as asking:
        answer = await asking.fetch(None, IPv4Address("203.0.113.77"))
    assert answer == ProfileRefused(7, "no such mobile node")


async def test_wrong_secret_counts_as_silence(server: int) -> None:
    async with client(server, secret=b"wrong" * 5) as asking:
        assert isinstance(await asking.fetch(), ProfileUnavailable)
        assert asking.stream.kinds == ["policy-server-dead"]


async def test_the_second_server_is_asked_when_the_first_is_gone(server: int) -> None:
    async with client(free_port(), server) as asking:
        assert isinstance(await asking.fetch(), ProfileFetched)
        assert asking.stream.counts["policy-server-silent"] == 1
        assert isinstance(await asking.fetch(), ProfileFetched)  # the dead one is not asked first again
        assert asking.stream.counts["policy-server-silent"] == 1


async def test_a_server_that_hangs_is_passed_over_for_a_while(server: int, tmp_path: Path) -> None:
    """It is waited for once; then the other one is asked first, until `dead_time` is over."""
    with freeradius(tmp_path) as (hanging, program):
        program.send_signal(signal.SIGSTOP)
        async with client(hanging, server, timeout=0.3, dead_time=4.0) as asking:
            begin = time.monotonic()
            assert isinstance(await asking.fetch(), ProfileFetched)
            first = time.monotonic() - begin
            assert isinstance(await asking.fetch(GUEST), ProfileFetched)
            assert first >= 0.9, "0.3 s and, after a retransmission, 0.6 s"
            assert asking.stream.kinds == ["policy-server-dead"]
            assert asking.stream.counts["policy-server-silent"] == 1, "then it is not waited for at all"
            program.send_signal(signal.SIGCONT)
            await asyncio.sleep(begin + first + 4.0 - time.monotonic())
            assert isinstance(await asking.fetch(), ProfileFetched)
            assert asking.stream.kinds == ["policy-server-dead", "policy-server-back"]
            assert asking.stream.counts["policy-server-silent"] == 1
        program.kill()
        assert program.stdout is not None
        received = re.findall(r"Received Access-Request Id \d+", program.stdout.read())
    assert len(set(received)) == 2, "the question that it hung at, and the last one"


# Servers that misbehave ---------------------------------------------------------------------------------------------

Says = Callable[[Any], list[bytes]]


class Liar(asyncio.DatagramProtocol):
    """A server with scripted answers."""

    def __init__(self, says: Says) -> None:
        self.says, self.asked = says, list[bytes]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked.append(data)
        request = AuthPacket(packet=data, secret=SECRET, dict=dictionary(None))
        for answer in self.says(request):
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def liar(says: Says) -> AsyncIterator[tuple[Liar, int]]:
    made = Liar(says)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
    try:
        yield made, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def reply(request: Any, *, signed: bool = True, **attributes: Any) -> bytes:
    """An authentic answer, without a Message-Authenticator if not `signed`."""
    answer = request.CreateReply(message_authenticator=signed or None)
    answer.request_authenticator = request.authenticator
    for name, value in attributes.items():
        answer.AddAttribute(name.replace("_", "-"), value)
    if signed:
        answer.add_message_authenticator()
        answer.authenticator = request.authenticator
    data: bytes = answer.ReplyPacket()
    return data


def spoiled(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


@pytest.mark.parametrize(
    ("says", "counted"),
    [
        (lambda request: [reply(request, signed=False)], "radius-no-message-authenticator"),
        (lambda request: [spoiled(reply(request, Locum_SPI=1000))], "radius-not-authentic"),
        (lambda request: [reply(request)[:4] + bytes(16) + reply(request)[20:]], "radius-not-authentic"),
        (lambda request: [bytes((2, (request.id + 1) % 256)) + reply(request)[2:]], "radius-unexpected"),
        (lambda request: [reply(request)[:19]], "radius-malformed"),
        (lambda request: [b"\x02"], "radius-unexpected"),
    ],
)
async def test_unauthentic_answers_are_counted_and_ignored(says: Says, counted: str) -> None:
    async with liar(says) as (_, port), client(port) as asking:
        assert isinstance(await asking.fetch(), ProfileUnavailable)
        assert asking.stream.counts[counted] >= 1


async def test_valid_answer_counts_after_invalid_ones() -> None:
    def says(request: Any) -> list[bytes]:
        return [reply(request, signed=False), spoiled(reply(request)), reply(request, Locum_Pool="guests")]

    async with liar(says) as (_, port), client(port) as asking:
        answer = await asking.fetch()
        assert answer.profile.pool == "guests"


async def test_a_request_that_is_repeated_is_the_same_and_signed() -> None:
    async with liar(lambda request: []) as (server, port), client(port) as asking:
        await asking.fetch()
    assert len(server.asked) == 2 and server.asked[0] == server.asked[1]
    request = AuthPacket(packet=server.asked[0], secret=SECRET, dict=dictionary(None))
    assert request.verify_message_authenticator()
    assert (request["User-Name"], request["NAS-Identifier"]) == ([ALICE], ["ha"])


async def test_senseless_profile_is_refused() -> None:
    async with liar(lambda request: [reply(request, Locum_SPI=1000)]) as (_, port), client(port) as asking:
        answer = await asking.fetch()
        assert isinstance(answer, ProfileUnavailable) and "Locum-Key" in answer.reason
        assert asking.stream.counts["profile-malformed"] == 1 and "profile-malformed" in asking.stream.kinds


async def test_a_refusal_must_be_authentic_too() -> None:
    def says(request: Any) -> list[bytes]:
        answer = bytearray(reply(request))
        answer[0] = AccessReject
        return [bytes(answer)]

    async with liar(says) as (_, port), client(port) as asking:
        assert isinstance(await asking.fetch(), ProfileUnavailable)


# Attributes ---------------------------------------------------------------------------------------------------------

KEY = "000102030405060708090a0b0c0d0e0f"


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"Locum_Key": KEY}, "belong together"),
        ({"Locum_Key": "xyz", "Locum_SPI": 1000}, "hexadecimal"),
        ({"Locum_Key": "00", "Locum_SPI": 1000}, "least"),
        ({"Locum_Key": KEY, "Locum_SPI": 5}, "SPI"),
        ({"Locum_Algorithm": 9, "Locum_Key": KEY, "Locum_SPI": 1000}, "Locum-Algorithm"),
        ({"Locum_Home_Address": "224.0.0.1"}, "no host"),
        ({"Locum_Pool": ["a", "b"]}, "2 times"),
        ({"Locum_Rule": "id = 1"}, "priority"),
        ({"Locum_Rule": 'id = 1, priority = 1, colour = "red", to = ["mn"]'}, "colour"),
        ({"Locum_Rule": "id = 1 } x = { "}, "inside"),
        ({"Locum_Rule": ['id = 1, priority = 1, to = ["mn"]'] * 2}, "there already"),
        ({"Locum_MNPS": 'name = "a", address = "10.0.0.2", spi = 1100'}, "Locum-MNPS-Key"),
        ({"Locum_MNPS_Key": f"1100 {KEY}"}, "no Locum-MNPS"),
        ({"Locum_Filter_To": ['id = 1, action = "drop"'] * 2}, "id 1"),
        (
            {
                "Locum_Filter_To": [f'id = {number}, action = "drop"' for number in range(1, 41)],
                "Locum_Paging": [f'id = {number}, action = "drop"' for number in range(1, 26)],
            },
            "more than 64 rules together",
        ),
        ({"Locum_Filter_To": 'id = 1, action = "drop", source = "10.0.0.1", flow_label = 1'}, "mixed"),
    ],
)
def test_senseless_attributes_are_named(attributes: dict[str, Any], complaint: str) -> None:
    request = AuthPacket(id=1, secret=SECRET, authenticator=bytes(16), dict=dictionary(None))
    answer = request.CreateReply(packet=reply(request, **attributes))
    answer.request_authenticator = request.authenticator
    with pytest.raises(ProfileError, match=complaint) as found:
        profile_of(answer)
    assert KEY not in str(found.value)


CONTROL = 'address = "10.0.0.2", mnps_id = "0102", mn_id = "0101"'
CONTROL_KEY = f"10.0.0.2 {KEY}"


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"Locum_Control": CONTROL}, "Locum-Control-Key of its own"),
        ({"Locum_Control_Key": CONTROL_KEY}, "no Locum-Control has"),
        ({"Locum_Control": CONTROL, "Locum_Control_Key": [CONTROL_KEY] * 2}, "each address once"),
        ({"Locum_Control": CONTROL, "Locum_Control_Key": f"here {KEY}"}, "an address, a space"),
        ({"Locum_Control": CONTROL, "Locum_Control_Key": "10.0.0.2 0011"}, "2 bytes"),
        ({"Locum_Control": CONTROL, "Locum_Control_Key": "10.0.0.2 xyz"}, "hexadecimal"),
        (
            {"Locum_Control": CONTROL.replace("0102", "0101"), "Locum_Control_Key": CONTROL_KEY},
            "different ids",
        ),
        (
            {"Locum_Control": CONTROL.replace("0102", "0102" * 4), "Locum_Control_Key": CONTROL_KEY},
            "mnps_id",
        ),
        ({"Locum_Control": f'{CONTROL}, colour = "red"', "Locum_Control_Key": CONTROL_KEY}, "colour"),
        (
            {
                "Locum_Control": CONTROL,
                "Locum_Control_Key": CONTROL_KEY,
                "Locum_Home_Address": "203.0.113.9",
            },
            r"203\.0\.113\.9",
        ),
    ],
)
def test_senseless_associations_are_named(attributes: dict[str, Any], complaint: str) -> None:
    request = AuthPacket(id=1, secret=SECRET, authenticator=bytes(16), dict=dictionary(None))
    answer = request.CreateReply(packet=reply(request, **attributes))
    answer.request_authenticator = request.authenticator
    with pytest.raises(ProfileError, match=complaint) as found:
        grant_of(answer, STAND_IN, HOME)
    assert KEY not in str(found.value)
