"""Registrations per second through the real home agent daemon with its store, against a bare echo of the same HMAC.

Every sample moves the whole crowd to another care-of address, so that each registration changes the binding, the store and the
data plane. Signing is not timed.
"""

import contextlib
import socket
import sys
from collections.abc import Callable, Collection
from itertools import cycle

from bench.home_agent import ADDRESS, CARE_OF_ADDRESSES, LIFETIME, Site, home_agent, site
from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, stop
from bench.registrar import OUTSTANDING, check_accepted, exchange
from locum.wire.registration import UDP_PORT

_MOBILES = 5_000
_ECHO_PORT = 4340


def _rate(at: Site, client: socket.socket, *, registers: bool) -> Callable[[], float]:
    """A sampler: the whole crowd registers once; registrations per second."""
    places = cycle(CARE_OF_ADDRESSES)

    def sample() -> float:
        messages = at.crowd.sign(0, at.crowd.mobiles, next(places), lifetime=LIFETIME)
        seconds, answers = exchange(client, messages)
        if registers:
            check_accepted(answers, at.crowd.home_addresses(0, at.crowd.mobiles))
        return len(answers) / seconds

    return sample


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row `registrations`."""
    mobiles = max(int(_MOBILES * settings.scale), 2 * OUTSTANDING)
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(site(mobiles))
        stack.enter_context(home_agent(at))
        echo = at.agent.start(
            sys.executable, "-m", "bench.echo", str(ADDRESS), str(_ECHO_PORT), str(at.key_file)
        )
        stack.callback(stop, echo)
        if echo.stdout is None or echo.stdout.readline() != "ready\n":
            raise CommandFailed("the echo server did not start")
        real = stack.enter_context(at.client(UDP_PORT))
        bare = stack.enter_context(at.client(_ECHO_PORT))
        ours, plain = in_turns(
            settings.rounds, _rate(at, real, registers=True), _rate(at, bare, registers=False)
        )
    note = (
        f"{mobiles} mobile nodes that move at every sample, {OUTSTANDING} requests under way at once, "
        "HMAC-SHA-256, timestamps; client and server each have a processor"
    )
    return [Measurement("registrations", "1/s", ours, plain, (note,))]
