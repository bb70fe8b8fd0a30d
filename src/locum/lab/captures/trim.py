"""Cuts TCP payload that is not whole out of captures, down to the headers, once they are complete.

Captures are snapped, and tshark takes the beginning of a segment whose end is missing for the beginning of a message:
random bytes of a film then look like a broken HTTP header. CoAP over TCP (RFC 8323) is always cut: it is the encrypted
bulk of 634, and tshark 4.0 reads the settings that open it as options of a request, hence as malformed. CoAP over UDP,
registrations and small HTTP messages stay whole.
"""

import struct
from pathlib import Path

from locum.lab.captures.pcap import COOKED_2

PORT = 5683
MOBILE_IP = 434
_MARK = PORT.to_bytes(2, "big")
_COOKED = 20
_IPV4, _IPV6, _IPIP, _TCP, _V6_IN_V4, _ICMP, _ICMP6 = 0x0800, 0x86DD, 4, 6, 41, 1, 58
_UDP, _TUNNEL_DATA = 17, 4  # RFC 3519 section 3.3
_INSIDE = {_IPIP: _IPV4, _V6_IN_V4: _IPV6}
_HEADERS = 160
"""Bytes from the start of a frame among which the ports of TCP are, two tunnels and an ICMP error included."""
_record = struct.Struct("<IIII")


def trim(file: Path) -> int:
    """Rewrite a little-endian cooked capture; returns how many frames were cut.

    Raises ValueError when it is another sort of file.
    """
    data = file.read_bytes()
    if len(data) < 24:
        return 0
    if data[:4] != b"\xd4\xc3\xb2\xa1" or struct.unpack_from("<I", data, 20)[0] != COOKED_2:
        raise ValueError(f"{file} is not a little-endian Linux cooked capture")
    pieces, copied, offset, cut = [], 0, 24, 0
    while offset + 16 <= len(data):
        seconds, part, captured, length = _record.unpack_from(data, offset)
        body = offset + 16
        offset = body + captured
        if offset > len(data):
            break
        if captured == length and data.find(_MARK, body, min(offset, body + _HEADERS)) < 0:
            continue
        keep = _wanted(data[body : min(offset, body + _HEADERS)], whole=captured == length)
        if keep is not None and keep < captured:
            pieces += [
                data[copied : body - 16],
                _record.pack(seconds, part, keep, length),
                data[body : body + keep],
            ]
            copied = offset
            cut += 1
    pieces.append(data[copied:])
    draft = file.with_suffix(".new")
    with draft.open("wb") as target:
        target.writelines(pieces)
    draft.rename(file)
    return cut


def _wanted(frame: bytes, *, whole: bool) -> int | None:
    """End of a frame's TCP header if its payload is to be cut, also inside tunnels and ICMP errors."""
    (kind,) = struct.unpack_from("!H", frame)
    at = _COOKED
    while kind and at + 40 <= len(frame):
        if kind == _IPV4:
            protocol, fragment = frame[at + 9], (frame[at + 6] & 0x1F) << 8 | frame[at + 7]
            at += (frame[at] & 15) * 4
            if fragment:
                return None
        elif kind == _IPV6:
            protocol = frame[at + 6]
            at += 40
        else:
            return None
        if protocol == _TCP:
            if at + 14 > len(frame):
                return None
            ours = PORT in struct.unpack_from("!HH", frame, at)
            return at + (frame[at + 12] >> 4) * 4 if ours or not whole else None
        if protocol in (_ICMP, _ICMP6):
            quotes = at < len(frame) and frame[at] in ((3, 11) if protocol == _ICMP else (1, 2, 3))
            kind = (_IPV4 if protocol == _ICMP else _IPV6) if quotes else 0
            at += 8
        elif protocol == _UDP:
            if at + 10 > len(frame):
                return None
            tunnel = MOBILE_IP in struct.unpack_from("!HH", frame, at) and frame[at + 8] == _TUNNEL_DATA
            kind = _INSIDE.get(frame[at + 9], 0) if tunnel else 0
            at += 12
        else:
            kind = _INSIDE.get(protocol, 0)
    return None
