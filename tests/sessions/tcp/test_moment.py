"""Received and unread counts are of one moment, though the kernel gives them in two calls."""

import socket
import time
from types import SimpleNamespace
from typing import cast

import pytest

from locum.sessions.record import SessionRecord
from locum.sessions.tcp import repair, stand_in


def test_segment_between_two_reads_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with peer, ours:
        peer.sendall(bytes(5000))
        wait_for(ours, 5000)
        assert len(ours.recv(3000)) == 3000
        unread, more = repair.unread, [700, 800]

        def interrupted(sock: socket.socket) -> int:
            if more:  # arrives after the first look and before the second
                size, before = more.pop(), repair.info(sock).bytes_received
                peer.sendall(bytes(size))
                wait_for(sock, before + size)
            return unread(sock)

        monkeypatch.setattr(repair, "unread", interrupted)
        now = stand_in.condition(ours, cast(SessionRecord, SimpleNamespace(peer_closed=False)))
        assert not more
        assert now.received == 6500
        assert now.received - now.unread == 3000, "what was taken does not move"


def wait_for(sock: socket.socket, received: int) -> None:
    until = time.monotonic() + 5
    while repair.info(sock).bytes_received < received:
        assert time.monotonic() < until
        time.sleep(0.001)
