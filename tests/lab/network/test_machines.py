"""Machines of a lab write to files of their own, and nothing of them is left."""

from pathlib import Path

from locum.lab.configuration import Plan
from locum.lab.network.machines import cgroup
from locum.lab.network.topology import RENTED
from locum.lab.steps.one_server import comes, translates
from locum.lab.world import Lab


def test_two_machines_share_no_file(tmp_path: Path) -> None:
    plan = Plan(network=RENTED, machines=("srv", "mn"))
    with Lab("machines", tmp_path / "out", plan, captures=False) as lab:
        write = (
            "mkdir /etc/locum /run/locum && echo mine > /etc/locum/made && mkdir /sys/fs/bpf/pins && hostname"
        )
        assert lab.processes.run("srv", ["sh", "-c", write]).stdout == "srv\n"
        look = "cat /etc/locum/made; ls /sys/fs/bpf /sys/class/net"
        seen = lab.processes.run("mn", ["sh", "-c", look])
        assert "mine" not in seen.stdout
        assert "pins" not in seen.stdout
        assert "radio1" in seen.stdout.split()
        assert lab.processes.run("srv", ["cat", "/etc/locum/made"]).stdout == "mine\n"
        groups = [cgroup(lab.place, node) for node in plan.machines]
        assert all(group.exists() for group in groups)
        own = lab.processes.run("mn", ["sh", "-c", "mkdir /sys/fs/cgroup/below; cat /proc/self/cgroup"])
        assert "0::/\n" in own.stdout
    assert not [group for group in groups if group.exists()]
    assert not Path("/etc/locum/made").exists()


def test_devices_reach_the_server_through_translators(tmp_path: Path) -> None:
    plan = Plan(network=RENTED, machines=("mn",))
    with Lab("rented", tmp_path / "out", plan, captures=False) as lab:
        for router in ("hr", "cr"):
            translates(lab, router)
            comes(lab, "mn", router, metric=100 if router == "hr" else 200)
        for interface in ("radio0", "radio1"):
            ping = ["ping", "-n", "-c", "1", "-W", "2", "-I", interface, str(lab.topology.address4("srv"))]
            assert lab.processes.run("mn", ping).returncode == 0, interface
