"""The network and the files of an application proxy: effects that it returns, and happenings that it gets (A1, A4-A11).

A proxy that opens connections, listens, or keeps files has the method `happened` of `app_contract.NetworkApp` besides those of `App`.
The program that runs it (`locum.apps.host`) does the input and output. Sockets come from the stand-in: they are bound to the
device's home address, and the kernel below them lets out only what the order's `emission` allows (R20). A proxy chooses the
numbers of its connections and listeners; a number is free again after `Ended`. A new process has no connections,
and has the files of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_CONNECTIONS = 256
"""Connections and listeners of one proxy."""
MAX_UNSENT = 1 << 20
"""Bytes that wait to be sent in one connection; more of them end it with ENOBUFS."""
MAX_FILES = 256
"""Files of one proxy."""
MAX_FILE_NAME = 100
"""Characters of a file's name: letters, digits, dot, hyphen, underscore; the first one is no dot."""
MAX_LOAD = 256 << 10
"""Bytes of one `Load`."""
MAX_CAPTURED = 1000
"""Packets a second of which a proxy gets the headers."""
MAX_HOST_NAME = 253
"""Characters (RFC 1035 section 2.3.4)."""
TCP, UDP = 6, 17
AUDIO = ("flac", "ogg", "wav", "aiff", "mp4", "aac", "mp3")
"""Forms of audio that a stand-in decodes, if it has a program for them."""
KILLED = 128
"""Exit status of a decoder that a signal has ended, without the signal's number, which is added as a shell does."""


# Effects ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a TCP connection from the home address. -> Opened, or Ended.

    `host` is a name or an address. With `tls` the connection is encrypted (TLS 1.2 or later); the certificate has to be valid for
    `host` and the trust store of the stand-in. `patience` in seconds, for name, handshake and TLS together.
    """

    connection: int
    host: str
    port: int
    tls: bool = False
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class StartTls:
    """Go on encrypted in an open connection (STARTTLS), as `Connect.tls` says. -> Opened, or Ended."""

    connection: int
    host: str


@dataclass(frozen=True, slots=True)
class Listen:
    """Accept TCP connections, or take UDP datagrams, at this port of the home address. -> Opened, or Ended.

    The port of a listener of the device goes to the proxy while it runs.
    """

    listener: int
    port: int
    protocol: int = TCP


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes in the connection, after everything before."""

    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SendFile:
    """Send `length` bytes of the file from `offset`, after everything before. The content is read when its turn comes."""

    connection: int
    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send a datagram from a UDP listener. An unreachable peer is not told."""

    listener: int
    host: str
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """End the connection or the listener: what was sent before goes out first, then FIN. -> Ended."""

    connection: int


@dataclass(frozen=True, slots=True)
class Abort:
    """End the connection at once, with RST. -> Ended."""

    connection: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Read no more from this connection or listener until `Resume`: the peer's window fills."""

    connection: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Read again."""

    connection: int


@dataclass(frozen=True, slots=True)
class HandOver:
    """Keep the open connection for the device: it becomes a live session, for the program that waits under `label` (A11).

    The proxy has no more to do with it; `unread` goes to the program before everything that arrives from now on.
    """

    connection: int
    label: str
    unread: bytes = b""


@dataclass(frozen=True, slots=True)
class Append:
    """Write behind the end of a file, which is made if there is none. Without room: Failed."""

    file: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """Give a file this size; it is made if there is none."""

    file: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class Rename:
    """Give a file another name, in place of a file of that name, atomically and durably."""

    file: str
    to: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file; nothing happens if there is none."""

    file: str


@dataclass(frozen=True, slots=True)
class Load:
    """Read bytes of a file, at most MAX_LOAD. -> Loaded, or Failed."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Make the content of a file durable. -> Synced, or Failed."""

    file: str


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode the audio in a file, of this form (AUDIO), to a WAV file `to` of at most `most` bytes. -> Decoded

    A program of the stand-in's host does it, in a process of its own.
    """

    file: str
    to: str
    form: str
    most: int


@dataclass(frozen=True, slots=True)
class Capture:
    """Give this proxy headers of packets to the home addresses that no session, listener or proxy takes (A2). -> Packets

    At most `per_second` of them (MAX_CAPTURED); those beyond are counted.
    """

    per_second: int


NetworkEffect: TypeAlias = (
    Connect
    | StartTls
    | Listen
    | Send
    | SendFile
    | SendTo
    | Finish
    | Abort
    | Pause
    | Resume
    | HandOver
    | Append
    | Truncate
    | Rename
    | Remove
    | Load
    | Sync
    | Decode
    | Capture
)


# Happenings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Files:
    """The files that an earlier process left, or the device sent: name and bytes. It comes after `begin`, once."""

    files: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection (or its TLS) is open, or the listener listens; `peer` is empty for a listener."""

    connection: int
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A peer has connected. The host has chosen `connection`, a negative number."""

    listener: int
    connection: int
    peer: str
    port: int


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of the peer, in order. Empty: it sends no more (FIN)."""

    connection: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram that a listener got."""

    listener: int
    peer: str
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Drained:
    """All bytes of the connection have been given to the kernel."""

    connection: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection or the listener is gone: by `Finish`, by the peer, or by a failure; `reason` is empty for the first two."""

    connection: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Bytes of a file; fewer than asked for at its end."""

    file: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Synced:
    """The content of the file is durable up to `size`."""

    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """`to` has `size` bytes; `reason` is why it is not complete, and empty if it is."""

    file: str
    to: str
    size: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """An effect on a file was not carried out; nothing of it was. `error` is an errno: ENOSPC at the end of the proxy's room as well."""

    file: str
    error: int


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """First bytes of a packet from its IP header on, at most 128; nanoseconds since 1970; bytes of the whole packet."""

    time: int
    data: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets that nothing took, in order; `left_out` came besides, since the last time, beyond the rate of `Capture`."""

    packets: Sequence[CapturedPacket]
    left_out: int = 0


Happening: TypeAlias = (
    Files
    | Opened
    | Accepted
    | Data
    | Datagram
    | Drained
    | Ended
    | Loaded
    | Synced
    | Decoded
    | Failed
    | Packets
)
