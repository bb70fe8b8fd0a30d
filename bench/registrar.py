"""A crowd of mobile nodes in one client: signs their registrations beforehand, then sends them with bounded outstanding.

The client is the same for the home agent and for the baseline. It measures; it does not judge why a server is slow.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench.namespaces import CommandFailed
from locum.security.association import Association
from locum.security.replay import next_identification
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest

SPI = 1000
OUTSTANDING = 128
"""Concurrent requests; as many answers fit into a socket's receive buffer."""
CHUNK = 2_500
"""Registrations signed at a time: the home agent takes only timestamps of the last seconds (RFC 5944 section 5.7.1)."""
_FIRST_MOBILE = IPv4Address("10.64.0.1")
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Mobile nodes that share a key, and their home agent."""

    mobiles: int
    home_agent: IPv4Address
    association: Association

    def home_addresses(self, begin: int, end: int) -> list[IPv4Address]:
        """The home addresses of the mobile nodes from number `begin` up to `end`."""
        return [_FIRST_MOBILE + number for number in range(begin, end)]

    def sign(self, begin: int, end: int, care_of_address: IPv4Address, *, lifetime: int) -> list[bytes]:
        """One registration of each of those mobile nodes, from now, at a co-located care-of address (D and T bit)."""
        signed, identification = [], None
        for home_address in self.home_addresses(begin, end):
            identification = next_identification(time.time(), identification)
            request = RegistrationRequest(
                lifetime, home_address, self.home_agent, care_of_address, identification, Flag.D | Flag.T
            )
            signed.append(
                append_authentication(
                    request.encode(), AuthKind.MN_HA, SPI, self.association.digest, authenticator_bytes=32
                )
            )
        return signed


def exchange(client: socket.socket, messages: Sequence[bytes]) -> tuple[float, list[bytes]]:
    """Send all, never more than OUTSTANDING without an answer; the seconds it took and the answers.

    `client` is connected to the server. Raises CommandFailed when no answer comes for _ANSWER_SECONDS.
    """
    client.settimeout(_ANSWER_SECONDS)
    send, receive = client.send, client.recv
    answers: list[bytes] = []
    waiting = iter(messages)
    begin = time.perf_counter()
    for _, message in zip(range(OUTSTANDING), waiting, strict=False):
        send(message)
    try:
        for message in waiting:
            answers.append(receive(2048))
            send(message)
        while len(answers) < len(messages):
            answers.append(receive(2048))
    except TimeoutError as error:
        raise CommandFailed(f"{len(answers)} of {len(messages)} answers, then none for 5 s") from error
    return time.perf_counter() - begin, answers


def register(client: socket.socket, crowd: Crowd, care_of_address: IPv4Address, *, lifetime: int) -> float:
    """Register the whole crowd at that care-of address; the seconds it took, without those for signing.

    Raises CommandFailed unless all are accepted.
    """
    seconds = 0.0
    for begin in range(0, crowd.mobiles, CHUNK):
        end = min(begin + CHUNK, crowd.mobiles)
        messages = crowd.sign(begin, end, care_of_address, lifetime=lifetime)
        taken, answers = exchange(client, messages)
        seconds += taken
        check_accepted(answers, crowd.home_addresses(begin, end))
    return seconds


def check_accepted(answers: Sequence[bytes], home_addresses: Sequence[IPv4Address]) -> None:
    """Raise CommandFailed unless every home address has exactly one answer that accepts it."""
    replies = [RegistrationReply.decode(answer) for answer in answers]
    refused = next((reply for reply in replies if reply.code != Code.ACCEPTED), None)
    if refused is not None:
        raise CommandFailed(f"{refused.home_address} was refused with code {refused.code!r}")
    if sorted(reply.home_address for reply in replies) != list(home_addresses):
        raise CommandFailed("the answers are not those of the mobile nodes that asked")
