"""One end of the tunnel in a forwarding measurement: Locum's data plane with the entries that a HA or a FA would have.

Run inside a router of `bench.chain` as `python -m bench.forwarder encapsulator|decapsulator BPF_DIRECTORY`. Prints `ready`, forwards
until its standard input closes, prints its counters as one JSON line, and leaves the network as it was found.
"""

import json
import sys
from pathlib import Path

from bench.chain import DECAPSULATOR, DELIVERY, ENCAPSULATOR, HOME_ADDRESS
from locum.dataplane.plane import DataPlane
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    ForwardingAction,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)

ENTRIES: dict[str, tuple[ForwardingAction, ...]] = {
    "encapsulator": (
        LocalEndpoint(ENCAPSULATOR),
        InstallBinding(
            BindingEntry(HOME_ADDRESS, Verdict.ENCAPSULATE, (Tunnel(ENCAPSULATOR, DECAPSULATOR),)),
        ),
        AcceptTunnel(TunnelAcceptance(DECAPSULATOR, HOME_ADDRESS, Side.FROM_HOME_ADDRESS)),
    ),
    "decapsulator": (
        LocalEndpoint(DECAPSULATOR),
        AcceptTunnel(TunnelAcceptance(ENCAPSULATOR, HOME_ADDRESS, Side.TO_HOME_ADDRESS, "fore", DELIVERY)),
        InstallOutbound(OutboundEntry(HOME_ADDRESS, "fore", Tunnel(DECAPSULATOR, ENCAPSULATOR))),
    ),
}
"""Both directions go through the tunnel, as always with reverse tunnelling (the T bit)."""


def main() -> None:
    """Forward until standard input closes."""
    role, directory = sys.argv[1:]
    plane = DataPlane.open(f"bench-{role}", ("back", "fore"), bpf_root=Path(directory))
    try:
        plane.apply(ENTRIES[role])
        print("ready", flush=True)
        sys.stdin.read()
        print(json.dumps(plane.counters()), flush=True)
    finally:
        plane.remove()


if __name__ == "__main__":
    main()
