"""Place of a lab on this machine, and discovery of everything that belongs to it.

A lab is a directory /run/locum-lab/<id>/ and namespaces named lt-<id>-<node>. Nothing else has to be remembered:
its processes are those inside its namespaces, its mounts are below its directory. So `locum lab down` also cleans
remains of a run that was killed with SIGKILL.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from locum.lab.errors import LabError
from locum.node.sessions.freezer_name import cgroups_of, freezer_name

ROOT = Path(os.environ.get("LOCUM_LAB_DIRECTORY", "/run/locum-lab"))
"""The directories of all labs. Short: it is the beginning of names of Unix sockets (108 bytes, unix(7))."""
NAMESPACES = Path("/run/netns")
SSHD = Path("/run/sshd")
CGROUPS = Path("/sys/fs/cgroup")
_DRAFT = ".claim-"
"""The beginning of the name of a lab's directory that has no owner yet; a pid follows."""
_MADE_SSHD = "made-sshd-directory"
"""A file of each lab that uses an SSHD directory which a lab has made."""


def started_at(pid: int) -> int | None:
    """Start time of a process in ticks since boot, unique with its pid. None if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def namespace_inode(pid: int) -> int | None:
    """The network namespace of a process, None when it has gone meanwhile."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


@dataclass(frozen=True, slots=True)
class LabPlace:
    """The directory and the names of one lab."""

    identity: str

    @classmethod
    def claim(cls, scenario: str) -> "LabPlace":
        """Make the directory of a new lab; this process is its owner until `release_ownership`.

        The directory appears with its owner in it: `locum lab down`, beside it, removes labs without an owner.
        """
        while True:
            _remove_dead_drafts()
            place = cls(secrets.token_hex(2))
            if place.namespaces():
                continue  # of a lab with another ROOT
            draft = cls(f"{_DRAFT}{os.getpid()}-{place.identity}")
            try:
                ROOT.mkdir(mode=0o755, exist_ok=True)
                draft.path.mkdir(mode=0o700)
                draft._write_owner(
                    {"pid": os.getpid(), "started": started_at(os.getpid()), "scenario": scenario}
                )
                draft.path.rename(place.path)
            except OSError as error:
                shutil.rmtree(draft.path, ignore_errors=True)
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                    raise
                continue  # taken, or the last other lab has just gone and taken ROOT with it
            return place

    @classmethod
    def all(cls) -> "list[LabPlace]":
        """Every lab of this machine, oldest first."""
        ages: dict[str, float] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in ROOT.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if not path.name.startswith(_DRAFT):
                        ages[path.name] = path.stat().st_mtime
        return [cls(name) for name in sorted(ages, key=lambda name: ages[name])]

    @property
    def path(self) -> Path:
        return ROOT / self.identity

    @property
    def bpf_root(self) -> Path:
        return self.path / "bpf"

    def namespace(self, node: str) -> str:
        return f"lt-{self.identity}-{node}"

    def namespace_path(self, node: str) -> Path:
        return NAMESPACES / self.namespace(node)

    def namespaces(self) -> list[Path]:
        return sorted(NAMESPACES.glob(f"lt-{self.identity}-*"))

    def _write_owner(self, owner: dict[str, object]) -> None:
        target = self.path / "owner.json"
        draft = target.with_suffix(".new")
        draft.write_text(json.dumps(owner))
        draft.rename(target)

    def _owner(self) -> dict[str, object]:
        try:
            owner = json.loads((self.path / "owner.json").read_text())
        except (FileNotFoundError, PermissionError, json.JSONDecodeError):
            return {}
        return owner if isinstance(owner, dict) else {}

    @property
    def another_users(self) -> bool:
        """True if its directory is unreadable: it was made by another user."""
        return self.path.exists() and not os.access(self.path, os.R_OK | os.X_OK)

    @property
    def scenario(self) -> str:
        return str(self._owner().get("scenario", "?"))

    def owner_alive(self) -> int | None:
        """The pid of the run that this lab belongs to, None when it has ended or the lab is kept."""
        owner = self._owner()
        pid = owner.get("pid")
        if isinstance(pid, int) and started_at(pid) == owner.get("started"):
            return pid
        return None

    def release_ownership(self) -> None:
        """Keep the lab although this process ends (`--keep`)."""
        self._write_owner({"pid": None, "started": None, "scenario": self.scenario})

    def processes(self) -> Iterator[int]:
        """Pids of everything that runs in this lab's namespaces."""
        inodes = set()
        for path in self.namespaces():
            with contextlib.suppress(FileNotFoundError):
                inodes.add(path.stat().st_ino)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and namespace_inode(int(entry.name)) in inodes:
                yield int(entry.name)

    def processes_of(self, node: str) -> list[int]:
        """Pids of everything that runs in a node's namespace."""
        inode = self.namespace_path(node).stat().st_ino
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return [pid for pid in pids if namespace_inode(pid) == inode]

    def cgroups(self) -> list[Path]:
        """The cgroups that freezers of this lab's nodes made, perhaps empty ones of programs that are gone."""
        root = next(
            (root for root in (CGROUPS / "unified", CGROUPS) if (root / "cgroup.procs").exists()), None
        )
        if root is None:
            return []
        nodes = [file.stem for file in (self.path / "config").glob("*.toml")]
        freezers = [
            path for node in nodes for path in cgroups_of(freezer_name(node, self.path / "run"), root)
        ]
        return [*freezers, *self._machines_groups(root)]

    def machine_group(self, node: str) -> str:
        """The name of the control group of a node that is a machine of its own (`machines.py`)."""
        return f"locum-lab-{self.identity}-{node}"

    def _machines_groups(self, root: Path) -> list[Path]:
        """Control groups of such nodes and those below, the innermost first."""
        tops = root.glob(self.machine_group("*"))
        return [Path(folder) for top in tops for folder, _names, _files in os.walk(top, topdown=False)]

    def mounts(self) -> list[str]:
        """Mount points below the lab's directory, innermost first."""
        table = Path("/proc/self/mounts").read_text().splitlines()
        points = [line.split()[1] for line in table]
        return sorted((point for point in points if Path(point).is_relative_to(self.path)), reverse=True)

    def mount_bpf(self) -> None:
        """A bpffs of the lab's own, so that pins of two labs, and of the machine, never meet."""
        self.bpf_root.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "bpf", "none", str(self.bpf_root)], capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"cannot mount a bpffs at {self.bpf_root}: {done.stderr.strip()}")

    def lend_sshd_directory(self) -> None:
        """sshd has the path of its empty directory compiled in; if the machine has none it is made for its labs."""
        if not SSHD.exists() or any((place.path / _MADE_SSHD).exists() for place in LabPlace.all()):
            (self.path / _MADE_SSHD).touch()
            SSHD.mkdir(mode=0o755, exist_ok=True)

    def remove(self) -> None:
        """Remove everything of this lab, whoever made it. Safe to repeat, and on an incomplete lab."""
        self._kill_all()
        for mount in self.mounts():
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        for namespace in self.namespaces():
            subprocess.run(["ip", "netns", "delete", namespace.name], check=False, capture_output=True)
        for cgroup in self.cgroups():
            with contextlib.suppress(OSError):
                cgroup.rmdir()
        made_sshd = (self.path / _MADE_SSHD).exists()
        shutil.rmtree(self.path, ignore_errors=True)
        if made_sshd and not any((place.path / _MADE_SSHD).exists() for place in LabPlace.all()):
            with contextlib.suppress(OSError):  # the last lab that uses it
                SSHD.rmdir()
        _remove_dead_drafts()
        with contextlib.suppress(OSError):
            ROOT.rmdir()

    def _kill_all(self, patience: float = 5.0) -> None:
        """SIGKILL until nothing is left in its namespaces and in its freezers' cgroups."""
        deadline = time.monotonic() + patience
        while pids := [pid for pid in {*self.processes(), *self._frozen()} if started_at(pid) is not None]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            if time.monotonic() > deadline:
                raise LabError(f"lab {self.identity}: processes {pids} do not end after SIGKILL")
            time.sleep(0.02)

    def _frozen(self) -> Iterator[int]:
        for cgroup in self.cgroups():
            with contextlib.suppress(OSError):
                yield from map(int, (cgroup / "cgroup.procs").read_text().split())


def _remove_dead_drafts() -> None:
    """Remove the directories of processes that were killed while they claimed a lab."""
    try:
        paths = [path for path in ROOT.iterdir() if path.name.startswith(_DRAFT)]
    except FileNotFoundError:  # the last other lab has just gone and taken ROOT with it
        return
    for path in paths:
        if started_at(int(path.name.removeprefix(_DRAFT).partition("-")[0])) is None:
            shutil.rmtree(path, ignore_errors=True)


def cgroup_of(pid: int) -> Path | None:
    """The cgroup v2 directory of a process, wherever the hierarchy is mounted; None when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in lines:
        if line.startswith("0::"):
            for mount in (CGROUPS / "unified", CGROUPS):
                path = mount / line[3:].lstrip("/")
                if (path / "cgroup.procs").exists():
                    return path
    return None
