"""Malformed packets of a capture, as tshark reports them.

Three sorts of packets that tshark marks are not counted, and nothing else:

- Messages of a scenario's forger from its address for malformed messages, also inside tunnels and
  quoted in ICMP errors. Its messages from other addresses are well-formed, and count.
- Registrations with extension 154, because of that extension alone. RFC 7629 gives it the long format (RFC 5944 section
  1.10: type, sub-type, two bytes of length); tshark 4.0, which does not know it, takes the sub-type for a length of one
  byte and all that follows for what it is not. Such a message is walked by the RFC's formats here: it has to end where
  its last extension ends, and tshark has to find no error in the rest without these extensions.
- Experimental messages (RFC 4064), whose content is their users' own; tshark 4.0 knows none. They are walked here too: calls to
  sleeping devices and their answers have a head of fixed length, and end where their last extension ends.
"""

import struct
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

MULTIPATH = 154
_FIXED = {
    1: 24,
    3: 20,
}  # bytes before the extensions of a request and of a reply (RFC 5944 sections 3.3 and 3.4)
_EXPERIMENTAL = 255  # RFC 4064 section 3
_CALL, _CALL_KINDS = 24, (1, 2)  # bytes before the extensions of a call, and of its answer
_SEALED_KINDS, _MOST_SEALED = (
    (3, 4),
    1200,
)  # of a direct call and its answer, which are sealed; bytes of the whole
_ONE_BYTE = 0  # the only type that is not followed by a length (section 1.9)
_LONG = frozenset((36, 38, MULTIPATH))
"""Types in the long format: RFC 5944 section 3.5.5, RFC 3115 section 2.1, RFC 7629 section 4."""
_RAW = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)  # a pcap file of bare IP packets
_REGISTRATION, _UDP = 434, 17
_PCAP_HEADER = 24
"""Bytes before the first record of a pcap file."""
_TCP_IN_TUNNELS = (
    "(ip[9] = 4 and ip[29] = 6) or (ip[9] = 41 and ip[26] = 6)"  # RFC 2003, RFC 4213
    " or (udp port 434 and udp[8] = 4 and"  # RFC 3519 section 3.3
    " ((udp[9] = 4 and udp[21] = 6) or (udp[9] = 41 and udp[18] = 6)))"
    " or (ip6[6] = 4 and ip6[49] = 6) or (ip6[6] = 41 and ip6[46] = 6)"  # RFC 2473
)
_TCP_STREAM = (
    "(ip[9] = 6 and tcp[tcpflags] & (tcp-syn | tcp-fin | tcp-rst) = 0) or (ip6[6] = 6 and ip6[53] & 7 = 0)"
)
CONTROL = f"not ({_TCP_IN_TUNNELS} or {_TCP_STREAM})"
"""A filter of libpcap: all but the segments of TCP connections. Segments that open or end one pass outside tunnels.

CoAP over TCP is among those left out: its content is cut from every capture (`trim.py`).
"""


def malformed(file: Path, broken_from: Collection[str] = (), opaque: str = "") -> int:
    """Number of malformed packets of a pcap. `broken_from` are the forger's addresses for broken messages.

    `opaque` is a range of TCP ports ("7000-7099") whose content tshark is not to guess: captures have the heads of packets, and a
    guess that begins in the middle of a file finds broken HTTP in it.

    Raises OSError when tshark is missing or cannot read the file.
    """
    found = _marked(file, "".join(_but_from(name) for name in broken_from), opaque)
    marked = [row for row in found if not _is_whole_call(row)]
    misread = [rest for row in marked if (rest := _without_multipath(row)) is not None]
    return len(marked) - len(misread) + (_malformed_messages(misread) if misread else 0)


@contextmanager
def control_packets(files: Iterable[Path]) -> Iterator[Path]:
    """Copy the control packets of cooked captures into one pcap file that is there for the length of the block.

    The order is that of the captures. Raises OSError when tcpdump is missing or cannot read a file.
    """
    with tempfile.NamedTemporaryFile(suffix=".pcap") as target:
        for number, file in enumerate(files):
            done = subprocess.run(["tcpdump", "-n", "-r", str(file), "-w", "-", CONTROL], capture_output=True)
            if done.returncode:
                raise OSError(f"tcpdump cannot read {file}: {done.stderr.decode(errors='replace').strip()}")
            target.write(done.stdout[_PCAP_HEADER if number else 0 :])
        target.flush()
        yield Path(target.name)


def _but_from(address: str) -> str:
    return f" && !({'ipv6' if ip_address(address).version == 6 else 'ip'}.src == {address})"


def _marked(file: Path, others: str = "", opaque: str = "") -> list[list[str]]:
    """Protocols, extension types and UDP payloads of each packet that tshark marks."""
    fields = ("frame.protocols", "mip.ext.type", "udp.payload")
    command = ["tshark", "-n", "-r", str(file), "-Y", f"_ws.malformed{others}", "-T", "fields"]
    command += ["-d", f"tcp.port=={opaque},data"] if opaque else []
    done = subprocess.run(
        [*command, *(word for field in fields for word in ("-e", field))], capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(f"tshark cannot read {file}: {done.stderr.strip()}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def _is_whole_call(row: list[str]) -> bool:
    """True for an experimental message that is a call or an answer with all its extensions, or a sealed one."""
    protocols, _types, payloads = row
    if ":udp" not in protocols or "mip" not in protocols.split(":"):
        return False
    message = bytes.fromhex(payloads.rpartition(",")[2])
    if len(message) <= _CALL or message[0] != _EXPERIMENTAL:
        return False
    if message[1] in _SEALED_KINDS:
        return message[2:4] == b"\0\0" and len(message) <= _MOST_SEALED
    if message[1] not in _CALL_KINDS:
        return False
    at = _CALL
    while at < len(message):
        size = _extension_size(message[at : at + 4])
        if size is None:
            return False
        at += size
    return at == len(message)


def _without_multipath(row: list[str]) -> bytes | None:
    """The registration of a row without its extensions 154; None if it has none or is malformed."""
    protocols, types, payloads = row
    if not protocols.endswith(":udp:mip") or str(MULTIPATH) not in types.split(","):
        return None
    message = bytes.fromhex(payloads.rpartition(",")[2])
    at = _FIXED.get(message[0] if message else 0, len(message))
    kept, taken = [message[:at]], 0
    while at < len(message):
        size = _extension_size(message[at : at + 4])
        if size is None or at + size > len(message):
            return None
        if message[at] == MULTIPATH:
            taken += 1
        else:
            kept.append(message[at : at + size])
        at += size
    return b"".join(kept) if taken and at == len(message) else None


def _extension_size(head: bytes) -> int | None:
    """Bytes of an extension with its header; None when the header is not whole."""
    if head[0] == _ONE_BYTE:
        return 1
    if head[0] in _LONG:
        return 4 + int.from_bytes(head[2:4], "big") if len(head) == 4 else None
    return 2 + head[1] if len(head) >= 2 else None


def _malformed_messages(messages: Iterable[bytes]) -> int:
    """Number of these registrations that tshark marks."""
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(_RAW)
        for message in messages:
            datagram = struct.pack("!HHHH", _REGISTRATION, _REGISTRATION, 8 + len(message), 0) + message
            addresses = bytes((192, 0, 2, 1, 192, 0, 2, 2))
            header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, _UDP, 0) + addresses
            packet = header + datagram
            file.write(struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet)
        file.flush()
        return len(_marked(Path(file.name)))
