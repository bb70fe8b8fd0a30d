"""The data plane outlives its daemon, is taken over, follows its interfaces, and leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane, DataPlaneError
from locum.dataplane import plane as plane_module
from locum.dataplane.kernel.loading import verifier_message
from locum.dataplane.layout import maps
from locum.dataplane.state import state_of
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    RemoveBinding,
    SetFlow,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow
from tests.dataplane.chain import (
    CN4,
    FA4,
    HA4,
    HOME4,
    HOME6,
    Chain,
    chain,
    foreign_actions,
    home_actions,
    tunnels,
)
from tests.dataplane.namespaces import Namespace, join

SO_RCVBUFFORCE = 33  # Linux; the module has no name for it

DAEMON = """
import sys, time
from pathlib import Path
from locum.dataplane import DataPlane
from locum.roles.action_values.flows import Encapsulation
from tests.dataplane.chain import home_actions, tunnels
plane = DataPlane.open("ha", ["ha0", "ha1"], bpf_root=Path(sys.argv[1]))
print(len(plane.reconcile(home_actions(tunnels(Encapsulation.IPIP, 4)[0])).actions), flush=True)
time.sleep(60)
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Chain]:
    with chain(tmp_path / "bpf") as net:
        yield net


def daemon(net: Chain) -> tuple[subprocess.Popen[str], int]:
    """A process that opens the HA's data plane; (process, number of changes it had to make)."""
    process = subprocess.Popen(
        ["nsenter", f"--net={net.ha.path}", sys.executable, "-c", DAEMON, str(net.root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_killed_daemon_loses_no_packet(network: Chain) -> None:
    """SIGKILL under load, nothing running for a while, then another daemon with its own program: all packets arrive."""
    net = network
    fa = net.open(net.fa, "fa", ["fa0", "fa1"])
    with net.fa.inside():
        fa.apply(foreign_actions(tunnels(Encapsulation.IPIP, 4)[1]))
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind((str(HOME4), 7000))
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    process, changes = daemon(net)
    assert changes == 5
    events = {600: "kill", 1200: "start"}
    try:
        for number in range(2400):
            mouth.sendto(number.to_bytes(4, "big"), (str(HOME4), 7000))
            time.sleep(0.0005)
            if events.get(number) == "kill":
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            elif events.get(number) == "start":
                process, changes = daemon(net)
                assert changes == 0  # adopted as it was
        ear.settimeout(1)
        assert [int.from_bytes(ear.recv(10), "big") for _ in range(2400)] == list(range(2400))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with net.ha.inside():
            plane = DataPlane.open("ha", ["ha0", "ha1"], bpf_root=net.root)
            counted = plane.binding_counters(HOME4)
            plane.remove()
        with net.fa.inside():
            fa.remove()
    assert counted.packets == 2400


def test_addresses_that_went_meanwhile_are_own_no_more(network: Chain) -> None:
    """Packets to such an address are filtered and tunnelled as others; a next hop there is this host no longer."""
    net, gone = network, ip_address("198.51.100.7")
    net.ha.run(f"ip addr add {gone}/32 dev ha1")
    permitted = TunnelAcceptance(FA4, HOME4, Side.TO_HOME_ADDRESS, "ha0", gone)
    actions = [*home_actions(tunnels(Encapsulation.IPIP, 4)[0]), AcceptTunnel(permitted)]

    def flags(plane: DataPlane) -> tuple[bytes | None, int]:
        accepted = plane._tables._maps["acceptances"].get(maps.acceptance_key(permitted)) or b""
        return plane._tables._maps["endpoints"].get(maps.address(gone)), maps.ACCEPTANCE.unpack(accepted)[2]

    with net.ha.inside():
        plane = DataPlane.open("ha", ["ha0", "ha1"], bpf_root=net.root)
        plane.reconcile(actions)
        assert flags(plane) == (maps.WORD.pack(maps.OWN), maps.HERE)
        plane.close()
        net.ha.run(f"ip addr del {gone}/32 dev ha1")
        plane = DataPlane.open("ha", ["ha0", "ha1"], bpf_root=net.root)
        try:
            assert flags(plane) == (None, 0)
            assert not plane.reconcile(actions)
        finally:
            plane.remove()


def found(space: Namespace) -> dict[str, list[str]]:
    """Everything that a data plane changes on its host, as text."""
    commands = (
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "bpftool net show",
    )
    kinds = {command: space.run(command).splitlines() for command in commands}
    kinds["links"] = [line.split("@")[0] for line in space.run("ip -o link").splitlines()]
    kinds["qdiscs"] = [line for line in space.run("tc qdisc").splitlines() if "clsact" in line]
    kinds["sysctls"] = [line for line in space.run("sysctl -a").splitlines() if line.startswith("net.")]
    # Addresses that the kernel makes itself, and connections come and go meanwhile.
    noise = ("fe80", "ff00", "nf_conntrack", "neigh", "stable_secret")
    return {
        kind: sorted(line for line in lines if not any(word in line for word in noise))
        for kind, lines in kinds.items()
    }


@pytest.mark.parametrize("tcx", [True, False])
def test_leaves_the_network_as_it_was(network: Chain, tcx: bool) -> None:
    """Attach by tcx and by clsact, forward, remove: sysctls, rules, routes, devices and programs as before."""
    net = network
    before = [found(net.ha), found(net.fa)]
    ha = net.open(net.ha, "ha", ["ha0", "ha1"], tcx=tcx)
    fa = net.open(net.fa, "fa", ["fa0", "fa1"], tcx=tcx)
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 6)
    with net.ha.inside():
        ha.apply(home_actions(to_foreign))
        alone = found(net.ha)
        assert all(alone[kind] != before[0][kind] for kind in ("ip rule", "ip -6 rule", "links", "sysctls"))
        # Two data planes on one host do not disturb each other.
        again = DataPlane.open("other", ["ha0"], bpf_root=net.root, tcx=tcx)
        again.apply(home_actions(to_foreign))
        again.remove()
        assert found(net.ha) == alone
    with net.fa.inside():
        fa.apply(foreign_actions(to_home))
    time.sleep(0.1)
    assert "2 received" in net.cn.run(f"ping -c 2 -i 0.4 -W 1 {HOME4}")
    with net.ha.inside():
        ha.remove()
    with net.fa.inside():
        fa.remove()
    assert [found(net.ha), found(net.fa)] == before
    assert not (net.root / "locum").exists()


def test_interface_comes_back(network: Chain) -> None:
    """An access link is deleted and made again with another index: entries that name it work again."""
    net = network
    ha, fa = net.open(net.ha, "ha", ["ha0", "ha1"]), net.open(net.fa, "fa", ["fa0", "fa1"])
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    with net.ha.inside():
        ha.apply(home_actions(to_foreign))
    with net.fa.inside():
        fa.apply(foreign_actions(to_home))
    net.fa.run("ip link del fa1")
    with net.fa.inside():
        fa.detach("fa1")
        with pytest.raises(DataPlaneError, match="no interface fa1"):
            fa.attach("fa1")
    join(net.fa, "spare", net.mn, "other")
    join(net.fa, "fa1", net.mn, "mn0")
    net.fa.run("ip addr add 10.3.0.1/24 dev fa1")
    net.fa.run("ip route add 10.9.0.5 dev fa1")
    net.mn.run("ip route add 10.3.0.1 dev mn0")
    net.mn.run("ip route add default via 10.3.0.1 dev mn0 src 10.9.0.5")
    with net.fa.inside():
        fa.attach("fa1")
        assert fa.snapshot() == state_of(foreign_actions(to_home))
    assert "2 received" in net.cn.run(f"ping -c 2 -i 0.4 -W 1 {HOME4}")
    for space, plane in ((net.ha, ha), (net.fa, fa)):
        with space.inside():
            plane.remove()


def test_reconciliation(network: Chain) -> None:
    """Only differences are written, unchanged entries keep their counters, flows outlive changed bindings."""
    net = network
    flow = Flow(6, HOME4, 1, CN4, 2)
    with net.ha.inside():
        plane = DataPlane.open("ha", ["ha0"], bpf_root=net.root)
        try:
            actions = home_actions(tunnels(Encapsulation.GRE, 6)[0])
            assert len(plane.reconcile(actions).actions) == 5
            assert not plane.reconcile(actions)
            plane.apply([SetFlow(FlowEntry(flow, FlowVerdict.HOLD)), RemoveBinding(HOME4)])
            assert plane.snapshot().flows == {flow: FlowVerdict.HOLD}
            assert HOME4 not in plane.snapshot().bindings
            changed = InstallBinding(BindingEntry(HOME6, Verdict.DROP))
            done = plane.reconcile([*actions[:-1], changed]).actions
            assert len(done) == 3 and changed in done
            assert plane.snapshot() == plane.state == state_of([*actions[:-1], changed])
            many = [
                InstallBinding(
                    BindingEntry(
                        ip_address(0x0B000000 + i),
                        Verdict.ENCAPSULATE,
                        (Tunnel(HA4, ip_address("10.2.0.2")),),
                    )
                )
                for i in range(20_000)
            ]
            plane.reconcile(many)
            assert len(plane.snapshot().bindings) == 20_000
        finally:
            plane.remove()


def test_clear_errors(network: Chain, tmp_path: Path) -> None:
    net = network
    with net.ha.inside():
        with pytest.raises(DataPlaneError, match="is not a bpffs: mount one with"):
            DataPlane.open("ha", [], bpf_root=tmp_path)
        with pytest.raises(DataPlaneError, match=r"No such file or directory; make it"):
            DataPlane.open("ha", [], bpf_root=tmp_path / "none")
        plane = DataPlane.open("ha", [], bpf_root=net.root)
        with pytest.raises(DataPlaneError, match="lo has link-layer headers of kind 772"):
            plane.attach("lo")
        with pytest.raises(DataPlaneError, match="another daemon"):
            DataPlane.open("ha", [], bpf_root=net.root)
        plane.remove()


@pytest.mark.parametrize(
    ("name", "kind"), [("watched", "table"), ("groups", "table"), ("locum_egress", "program")]
)
def test_outdated_object_is_refused(
    network: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """An object without a table or program of today is refused in one line, and nothing is left behind."""
    old = b"\0" + name.encode() + b"\0"
    outdated = tmp_path / "locum.bpf.o"
    outdated.write_bytes(plane_module.OBJECT.read_bytes().replace(old, old[::-1]))
    monkeypatch.setattr(plane_module, "OBJECT", outdated)
    words = f"locum.bpf.o has no {kind} {name}: it was built from older sources; run `make setup`"
    with network.ha.inside(), pytest.raises(DataPlaneError, match=re.escape(words)):
        DataPlane.open("ha", ["ha0"], bpf_root=network.root)
    assert not (network.root / "locum").exists()


UNPRIVILEGED = """
import sys
from pathlib import Path
from locum.dataplane import DataPlane, DataPlaneError
try:
    DataPlane.open("poor", [], bpf_root=Path(sys.argv[1]))
except DataPlaneError as error:
    print(error)
"""


def test_missing_privilege(network: Chain) -> None:
    """One line names the missing privilege, and no state is left behind."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", UNPRIVILEGED]
    command = ["nsenter", f"--net={network.ha.path}", *without, str(network.root)]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True
    )
    assert result.stdout == "loading eBPF is not permitted; this needs root, or CAP_BPF and CAP_NET_ADMIN\n"
    assert not (network.root / "locum").exists()


def test_verifier_message_names_the_source_line() -> None:
    log = ["libbpf: prog 'x': BPF program load failed: Permission denied\n", "; return *p; @ locum.bpf.c:7\n"]
    log += [
        "3: (61) r0 = *(u32 *)(r1 +0)\n",
        "R1 invalid mem access 'map_value_or_null'\nprocessed 4 insns\n",
    ]
    message = verifier_message(log)
    assert message == "R1 invalid mem access 'map_value_or_null' (at `return *p; @ locum.bpf.c:7`)"
