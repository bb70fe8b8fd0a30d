"""A session that its device abandons: the peer is reset at once, whoever else keeps the socket open."""

import errno
import socket

import pytest

from locum.sessions.tcp import reset
from tests.sessions.ends import connect
from tests.sessions.program import payload
from tests.sessions.sleepworld import World


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("state", ["holding", "unread bytes", "stopped", "peer closed", "program closed"])
def test_the_peer_of_a_disclaimed_session_sees_a_reset(world: World, version: int, state: str) -> None:
    program, peer = connect(world, version)
    if state == "program closed":
        program.ask("shutdown")
    world.sleep()
    (away,) = world.away
    if state == "unread bytes":
        peer.socket.send(payload(1, 1000))
    if state == "peer closed":
        peer.socket.shutdown(socket.SHUT_WR)
        world.until(lambda: away.spool.peer_closed)
    if state == "stopped":
        away.spool.stop(away.socket)
    kept = socket.socket(fileno=socket.dup(away.socket.fileno()))  # as a holder has it
    reset(away.socket)
    away.socket = kept
    errors: set[int] = set()

    def told() -> bool:
        errors.add(peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return errors != {0}

    world.until(told)
    assert errors - {0} == {errno.EPIPE if state == "program closed" else errno.ECONNRESET}
