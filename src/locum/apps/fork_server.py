"""`python -m locum.apps.fork_server 3 KIND`: makes processes for proxies of one kind, for the stand-in at the other end of descriptor 3 (A1).

It imports the proxy's class once, and copies itself for each proxy: a copy begins in a few milliseconds, and shares the memory of all
modules until it writes there. Each copy is a child of the stand-in's daemon, not of this process, and then does exactly as
`locum.apps.host` does: it confines itself, and runs the proxy.

Packets (CBOR arrays, SOCK_SEQPACKET), to the stand-in: `ready`, or `unfit` with a reason. From it: the arguments of `locum.apps.host` after the kind,
with two descriptors: the proxy's channel and its output. Answers go into that channel, from both processes, so that one of them
arrives if the other dies: `born` with the copy's process number, or `unborn` with a reason. A channel that ends without either has no process.

Settings, states and bytes of devices do not come here: the stand-in says them to the proxy's process in its channel.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cbor2

from locum.apps.host import load, serve
from locum.apps.shell.channel import Channel, close
from locum.apps.shell.cloning import clone, descriptors, obstacle
from locum.apps.shell.confinement import ends_with_its_parent, yields_memory
from locum.apps.shell.freshness import Freshness, Stamp, stamp

if TYPE_CHECKING:
    from locum.apps.shell.trust import Trust

_REQUEST = 16 << 10
"""Bytes, more than any request has."""


class Authorities:
    """Certificates that proxies trust, read once and again when their files have changed."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[list[Stamp], Trust]] = {}

    def trust(self, additional: str) -> "Trust | None":
        """Of the host's certificates and this file; None if they cannot be read, which the proxy's process will find as well."""
        from locum.apps.shell import trust

        stamps = [stamp(path) for path in trust.bundles(additional)]
        known = self._read.get(additional)
        if known is None or known[0] != stamps:
            try:
                known = self._read[additional] = stamps, trust.Trust(additional)
            except OSError:
                return None
        return known[1]


def _copied(
    control: socket.socket, authorities: Authorities | None
) -> "tuple[list[str], Trust | None] | None":
    """Answer one request. None, or in the copy the arguments for it. Raises EOFError: the stand-in is gone."""
    data, descriptors, _, _ = socket.recv_fds(control, _REQUEST, 2)
    if not data:
        raise EOFError
    arguments = cbor2.loads(data)
    with_network = len(arguments) > 2
    trust = authorities.trust(arguments[-1]) if authorities is not None and with_network else None
    channel, output = descriptors
    with socket.socket(fileno=os.dup(channel)) as end:
        try:
            number = clone()
        except OSError as problem:
            Channel(end).send("unborn", problem.strerror)
            number = -1
        try:
            if number >= 0:
                Channel(end).send("born", number or os.getpid())
        except OSError:
            if not number:
                raise  # the stand-in wants it no more
    if number:
        close(descriptors)
        return None
    control.detach()
    for descriptor, place in ((channel, 3), (output, 1), (output, 2)):
        os.dup2(descriptor, place)
    close(descriptors)
    return arguments, trust


def _serve_copies(control: socket.socket, kind: str) -> "tuple[list[str], Trust | None]":
    """Copy this process until the stand-in is gone: EOFError. In a copy: its arguments."""
    freshness = Freshness()
    authorities = Authorities() if "locum.apps.shell.driver" in sys.modules else None
    if authorities is not None:
        authorities.trust("")
    gc.collect()
    gc.freeze()  # a collection in a copy would write to all objects
    Channel(control).send("ready")
    while True:
        control.recv(1, socket.MSG_PEEK)  # the request is left to the next program, if this one is stale
        if freshness.is_stale():
            os.execv(sys.executable, [sys.executable, "-P", "-m", "locum.apps.fork_server", "3", kind])
        if (copied := _copied(control, authorities)) is not None:
            return copied


def main(words: Sequence[str]) -> None:
    """Import the kind and wait for requests, until the stand-in is gone. Ends as `locum.apps.host` does in each copy."""
    control, kind = socket.socket(fileno=int(words[1])), words[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the stand-in's to handle
    ends_with_its_parent()
    yields_memory()
    close(descriptors())  # whatever a parent has left open
    found = load(kind)
    if hasattr(found, "happened"):
        from locum.apps.shell import driver  # noqa: F401  before the copies are made
    if reason := obstacle():
        Channel(control).send("unfit", reason)
        return
    sys.stdout.flush()
    try:
        arguments, trust = _serve_copies(control, kind)
    except (EOFError, ConnectionError):
        return
    serve(socket.socket(fileno=3), found, arguments, trust)


if __name__ == "__main__":
    main(sys.argv)
