"""The device's end of the enrolment: one exchange with the server that a code names."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Network

from locum.node.enrolment.frames import FrameError, framed, read_frame
from locum.security.enrolment import Exchange, JoinedKeys
from locum.security.sealing import NONCE_BYTES, seal, unseal
from locum.wire.enrolment.code import Code
from locum.wire.enrolment.messages import (
    Answer,
    Denial,
    Denied,
    Grant,
    Hello,
    Proof,
    Refusal,
    Refused,
    Sealed,
    Text,
    decode_message,
    decode_text,
)
from locum.wire.errors import WireError

PATIENCE = 15.0  # seconds for the connection
ANSWER_PATIENCE = 40.0  # the server may compute for others first, and waits for its disk
CLOCK_TOLERANCE = 7.0  # seconds; RFC 5944 section 5.7.1: a home agent takes no request that is further off

_NEW_CODE = "ask for a new code at the server"
_REFUSED = {
    Refused.CODE: f"the code is unknown, used or expired: {_NEW_CODE}",
    Refused.TOO_MANY: "the server has heard too many wrong codes: wait some minutes and join again",
    Refused.MALFORMED: "the server does not understand this device: install one version of Locum on both",
}
_DENIED = {
    Denied.USED: f"another device has used the code: {_NEW_CODE}",
    Denied.EXPIRED: f"the code has expired: {_NEW_CODE}",
    Denied.FULL: "the server has no address left: let it expel a device, then join again with the same code",
    Denied.COLLIDES: "the server's home prefix is in use in a network of this device: leave that network to join",
}


class JoinError(Exception):
    """The device has not joined. `str()` is one line that says why, and what to do; `reason` is a short fixed word."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Addresses and settings from the server, and the keys that both ends have derived."""

    grant: Grant
    keys: JoinedKeys = field(repr=False)
    clock_ahead: float  # seconds that the device's clock is ahead of the server's, rounded by the message

    @property
    def clock_warning(self) -> str | None:
        """One line if the clocks are too far apart for registrations by timestamps."""
        if abs(self.clock_ahead) <= CLOCK_TOLERANCE:
            return None
        side = "ahead of" if self.clock_ahead > 0 else "behind"
        seconds = abs(round(self.clock_ahead))
        return f"this device's clock is {seconds} s {side} the server's: let NTP set both"


async def enrol(
    code: Code,
    public_key: bytes,
    networks: tuple[IPv4Network | IPv6Network, ...],
    wall: Callable[[], float],
    entropy: Callable[[int], bytes],
) -> Enrolled:
    """Prove the code at its server. Raises JoinError. The same key may come again while the code is valid."""
    place = f"{code.host} TCP port {code.port}"
    reader, writer = await _connect(code, place)
    try:
        return await _exchange(reader, writer, code, (public_key, networks), wall, entropy)
    except TimeoutError:
        raise JoinError("no-answer", f"{place} takes connections but does not answer: try again") from None
    except FrameError as error:
        if error.reason == "closed":
            raise JoinError("closed", f"{place} has closed the connection: try again") from None
        raise _not_a_server(place) from None
    except WireError:
        raise _not_a_server(place) from None
    except OSError as error:
        raise JoinError(
            "closed", f"the connection to {place} broke: {error.strerror or error}: try again"
        ) from error
    finally:
        writer.transport.abort()


async def _connect(code: Code, place: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.open_connection(code.host, code.port, happy_eyeballs_delay=0.25)
    except TimeoutError:
        raise JoinError(
            "no-answer", f"no answer from {place}: check this device's network, and the server's firewall"
        ) from None
    except socket.gaierror as error:
        raise JoinError(
            "no-name", f"the name {code.host} has no address: {error.strerror}: check it"
        ) from error
    except ConnectionRefusedError:
        raise JoinError(
            "refused", f"nothing listens at {place}: start the server, or check its address in the code"
        ) from None
    except OSError as error:
        raise JoinError(
            "no-way", f"{place} cannot be reached: {error.strerror or error}: check this device's network"
        ) from error


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    code: Code,
    own: tuple[bytes, tuple[IPv4Network | IPv6Network, ...]],
    wall: Callable[[], float],
    entropy: Callable[[int], bytes],
) -> Enrolled:
    place = f"{code.host} TCP port {code.port}"
    end = await asyncio.to_thread(Exchange, code.secret, code.number, is_server=False, entropy=entropy)
    hello = Hello(code.number, end.element, code.host).encode()
    raw = await _asked(reader, writer, hello)
    answer = decode_message(raw)
    if isinstance(answer, Refusal):
        raise JoinError(answer.reason.name.lower(), _REFUSED[answer.reason])
    if not isinstance(answer, Answer):
        raise _not_a_server(place)
    try:
        exchanged = await asyncio.to_thread(end.finish, answer.element, hello, raw)
    except ValueError:
        raise _not_a_server(place) from None
    proof = Proof(own[0], max(0, int(wall())), own[1]).encode()
    sealed = Sealed(seal(exchanged.sealing.own, entropy(NONCE_BYTES), proof, b"")).encode()
    last = decode_message(await _asked(reader, writer, sealed))
    if isinstance(last, Refusal):
        raise JoinError(last.reason.name.lower(), _REFUSED[last.reason])
    if not isinstance(last, Sealed):
        raise _not_a_server(place)
    try:
        text = unseal(exchanged.sealing.peer, last.sealed, b"")
    except ValueError:
        raise JoinError(
            "impostor", f"{place} does not have the code: another machine answers there; {_NEW_CODE}"
        ) from None
    grant = _grant(decode_text(text), own[0], place)
    return Enrolled(grant, exchanged.joined, wall() - grant.clock)


def _grant(text: Text, own_key: bytes, place: str) -> Grant:
    if isinstance(text, Denial):
        raise JoinError(text.reason.name.lower(), _DENIED[text.reason])
    if not isinstance(text, Grant):
        raise _not_a_server(place)
    network = IPv4Interface((text.transport, text.transport_length)).network
    if (
        text.transport == text.server_transport
        or text.server_transport not in network
        or text.home in network
        or text.home.is_multicast
        or text.home.is_unspecified
        or text.server_key == own_key
    ):
        raise JoinError(
            "addresses", f"{place} gives addresses or a key that cannot be used: remake the server's setup"
        )
    return text


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> bytes:
    writer.write(framed(message))
    async with asyncio.timeout(ANSWER_PATIENCE):
        await writer.drain()
        return await read_frame(reader)


def _not_a_server(place: str) -> JoinError:
    return JoinError(
        "not-a-server", f"{place} does not speak the enrolment of this version: check address and version"
    )
