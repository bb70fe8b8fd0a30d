"""Registrations per second through the real home agent daemon with its store, against a bare echo of the same HMAC.

Every sample moves the whole crowd to another care-of address, so that each registration changes the binding, the store and the
data plane. Signing is not timed.
"""

import contextlib
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv4Address
from itertools import cycle, repeat
from statistics import median

from bench.home_agent import ADDRESS, CARE_OF_ADDRESSES, LIFETIME, Site, home_agent, site
from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, stop
from bench.registrar import OUTSTANDING, register
from bench.report import quantity
from locum.wire.mobile_ip.registration import UDP_PORT

_MOBILES = 5_000
_ECHO_PORT = 4340


def _rate(at: Site, client: socket.socket, places: Iterator[IPv4Address]) -> Callable[[], float]:
    """A sampler: the whole crowd registers once, at the next of `places`; registrations per second."""
    return lambda: at.crowd.mobiles / register(client, at.crowd, next(places), lifetime=LIFETIME)


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
        moving, staying = cycle(CARE_OF_ADDRESSES), repeat(CARE_OF_ADDRESSES[0])
        ours, plain = in_turns(settings.rounds, _rate(at, real, moving), _rate(at, bare, moving))
        renewed, plain_again = in_turns(settings.rounds, _rate(at, real, staying), _rate(at, bare, staying))
    note = (
        f"{mobiles} mobile nodes that move at every sample, {OUTSTANDING} requests under way at once, "
        "HMAC-SHA-256, timestamps; client and server each have a processor"
    )
    renewal = (
        f"renewals where the mobile node is, in the store but not in the data plane: "
        f"{quantity(median(renewed))} 1/s, ratio {quantity(median(renewed) / median(plain_again))}"
    )
    return [Measurement("registrations", "1/s", ours, plain, (note, renewal))]
