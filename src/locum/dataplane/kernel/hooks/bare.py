"""Programs for links without link-layer headers: WireGuard, TUN, PPP, WWAN. Packets begin with their IP header there.

At ingress such a packet gets a link-layer header, and the programs for Ethernet judge it. At egress that is not possible: what
passes has to leave as it was. So the same sources are compiled a second time for it; the maps are those of the first.
"""

from pathlib import Path

from locum.dataplane.kernel.loading import Object

OBJECT = Path(__file__).parents[2] / "objects" / "bare.bpf.o"
INGRESS = "locum_bare"
"""The program for ingress, in the object of the others."""
EGRESS = "locum_egress"


class BarePrograms:
    """They are loaded with the first such link, and closed with the others."""

    def __init__(self, others: Object) -> None:
        self._others = others
        self._object: Object | None = None

    def __call__(self) -> dict[str, int]:
        """File descriptors by direction. Raises DataPlaneError."""
        if self._object is None:
            self._object = Object(OBJECT, {}, None, programs=(EGRESS,), shared=self._others)
        return {"ingress": self._others.program(INGRESS), "egress": self._object.program(EGRESS)}
