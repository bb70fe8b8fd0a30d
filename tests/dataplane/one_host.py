"""One host with a data plane: packets arrive at `out0`, and the program and the model do the same with each."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scapy.packet import Packet

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment, Result
from tests.dataplane.namespaces import Namespace, bpffs, join

ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


class OneHost:
    """The ingress program of `out0` beside the model."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self.index = plane._attachments.find("out0") or 0
        link = plane._route.link("get", index=self.index)[0]
        self.hardware = bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
        self._run = ProgramRun(plane._object.program("locum_ingress"))

    def arrive(self, packet: Packet | bytes) -> tuple[Result, bytes]:
        """The model's decision about a packet that arrives, which is the program's, and the program's frame."""
        data = bytes(packet)
        frame = self.hardware + bytes(6) + ETHERTYPES[data[0] >> 4] + data
        environment = Environment(
            self.plane._device.ifindex, {"out0": self.index}, hardware={self.index: self.hardware}
        )
        wanted = Model(self.plane.state, environment).ingress(frame, self.index)
        _, out, context, _ = self._run.run(frame, ifindex=self.index)
        outcome, reason = struct.unpack_from("II", context, 48)
        assert (Outcome(outcome), Reason(reason)) == (wanted.outcome, wanted.reason), data.hex()
        return wanted, out


@contextmanager
def one_host(directory: Path, name: str, *commands: str) -> Iterator[DataPlane]:
    """Its data plane, in its namespace, with these commands done there before; everything is removed afterwards."""
    with bpffs(directory) as root:
        space, other = Namespace(name), Namespace(f"{name}-other")
        try:
            join(space, "out0", other, "out1")
            for command in commands:
                space.run(command)
            with space.inside():
                plane = DataPlane.open(name, [], bpf_root=root, limits=Limits(bindings=1024, flows=1024))
                try:
                    yield plane
                finally:
                    plane.remove()
        finally:
            space.remove()
            other.remove()
