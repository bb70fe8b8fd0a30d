"""The road that packets take in the forwarding measurements: source - encapsulator - decapsulator - destination.

    source 198.18.1.2 -- .1 encapsulator 198.18.2.1 == core == .2 decapsulator 198.18.3.1 -- .2 destination
                                                                        (home address 198.19.0.1 on its lo)

The home address has a route across the core only as a mode says (PLAIN or VXLAN): in a mode that claims a tunnel, packets that
the tunnel misses have no way to arrive, so a figure cannot come from the wrong path.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from bench.namespaces import CommandFailed, Namespace, join, namespaces

SOURCE = IPv4Address("198.18.1.2")
ENCAPSULATOR = IPv4Address("198.18.2.1")
DECAPSULATOR = IPv4Address("198.18.2.2")
DELIVERY = IPv4Address("198.18.3.2")
HOME_ADDRESS = IPv4Address("198.19.0.1")
COMPARISON_MTU = 1600
"""Core MTU in bytes of the comparison: all three variants then carry the same 1500-byte inner packets."""

_ROUTER = {
    "ipv4.ip_forward": "1",
    "ipv4.conf.all.rp_filter": "0",
    "ipv4.conf.default.rp_filter": "0",
    "ipv4.conf.all.send_redirects": "0",
}


class Carrier(Enum):
    """Carrier of the home address's packets across the core."""

    PLAIN = "plain kernel forwarding"
    VXLAN = "kernel VXLAN"
    LOCUM = "Locum's data plane"


@dataclass(frozen=True, slots=True)
class Chain:
    """The four namespaces. Link names: `fore` leads towards the destination, `back` towards the source."""

    source: Namespace
    encapsulator: Namespace
    decapsulator: Namespace
    destination: Namespace

    def carry(self, carrier: Carrier) -> None:
        """Set the kernel's routes for `carrier`. For LOCUM there are none: the data plane must carry everything."""
        self.encapsulator.ip(f"route flush {HOME_ADDRESS}")
        self.decapsulator.ip("route flush 198.18.1.0/24")
        via = {Carrier.PLAIN: (DECAPSULATOR, ENCAPSULATOR), Carrier.VXLAN: ("198.18.4.2", "198.18.4.1")}
        if carrier in via:
            forth, back = via[carrier]
            self.encapsulator.ip(f"route add {HOME_ADDRESS} via {forth}")
            self.decapsulator.ip(f"route add 198.18.1.0/24 via {back}")

    def core_mtu(self, mtu: int) -> None:
        """Give the core link another MTU, in bytes."""
        self.encapsulator.ip(f"link set fore mtu {mtu}")
        self.decapsulator.ip(f"link set back mtu {mtu}")

    @contextlib.contextmanager
    def driver_headroom(self) -> Iterator[None]:
        """Leave room in front of the source's frames meanwhile, as drivers of network cards do (NET_SKB_PAD, 64 bytes).

        Otherwise those of a packet socket have 2 bytes of it, and each frame that enters a tunnel costs a new buffer, which it
        does nowhere else. A bridge passes the needs of its VXLAN port (64 bytes) to the veth ports beside it, whose other end it has
        no part in: the source receives nothing meanwhile.
        """
        self.source.ip("link add room type bridge")
        self.source.ip(f"link add needs-room type vxlan id 45 dstport 4790 local {SOURCE}")
        try:
            self.source.ip("link set needs-room master room")
            self.source.ip("link set fore master room")
            yield
        finally:
            self.source.ip("link del room")
            self.source.ip("link del needs-room")

    def received(self) -> int:
        """Packets that arrived at the destination's interface since it was made."""
        return int(self.destination.run("cat", "/proc/net/dev").split("back:")[1].split()[1])

    def wait_until_open(self, *, seconds: float = 10.0) -> None:
        """Return when a ping crosses the chain. Raises CommandFailed after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            try:
                self.source.run("ping", "-q", "-c", "1", "-W", "1", str(HOME_ADDRESS))
                return
            except CommandFailed as error:
                if time.monotonic() > end:
                    raise CommandFailed(f"no ping crosses the chain after {seconds:.0f} s") from error


@contextlib.contextmanager
def chain(*, core_mtu: int = COMPARISON_MTU) -> Iterator[Chain]:
    """The chain, up and addressed, and removed at the end."""
    with namespaces("src", "enc", "dec", "dst") as (source, encapsulator, decapsulator, destination):
        join(source, "fore", encapsulator, "back")
        join(encapsulator, "fore", decapsulator, "back", mtu=core_mtu)
        join(decapsulator, "fore", destination, "back")
        for router in (encapsulator, decapsulator):
            router.sysctl(_ROUTER)
        source.ip(f"addr add {SOURCE}/24 dev fore")
        source.ip("route add default via 198.18.1.1")
        encapsulator.ip("addr add 198.18.1.1/24 dev back")
        encapsulator.ip(f"addr add {ENCAPSULATOR}/24 dev fore")
        decapsulator.ip(f"addr add {DECAPSULATOR}/24 dev back")
        decapsulator.ip("addr add 198.18.3.1/24 dev fore")
        decapsulator.ip(f"route add {HOME_ADDRESS} via {DELIVERY}")
        destination.ip(f"addr add {DELIVERY}/24 dev back")
        destination.ip(f"addr add {HOME_ADDRESS}/32 dev lo")
        destination.ip(f"route add default via 198.18.3.1 src {HOME_ADDRESS}")
        for end, local, remote, inner in (
            (encapsulator, ENCAPSULATOR, DECAPSULATOR, "198.18.4.1"),
            (decapsulator, DECAPSULATOR, ENCAPSULATOR, "198.18.4.2"),
        ):
            end.ip(f"link add vx type vxlan id 44 local {local} remote {remote} dstport 4789 noudpcsum")
            end.ip(f"addr add {inner}/24 dev vx")
            end.ip("link set vx up mtu 1550")
        yield Chain(source, encapsulator, decapsulator, destination)
