"""A kernel of Debian and its modules, fetched by apt once and kept in the virtual environment.

Nothing here is installed on this machine or started on it.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(sys.prefix) / "kernels"
# Modules of Debian's kernel that the tests use; their dependencies come along.
WANTED = (
    "virtio_pci", "9pnet_virtio", "9p", "overlay", "crc32c_generic",
    "veth", "tun", "nf_tables", "nft_ct", "nft_nat", "nft_chain_nat", "nf_conntrack_netlink",
    "tcp_diag", "udp_diag", "unix_diag", "tls", "sch_ingress", "cls_bpf",
)  # fmt: skip
# Where those are: all modules would be 400 MB.
_OF_KERNEL = r"boot/vmlinuz-|lib/modules/[^/]+/kernel/(net|lib|crypto|fs/(9p|fscache|netfs|overlayfs)|drivers/(virtio|net/(veth|tun)))\b"


class FetchError(Exception):
    """Debian's archive does not give the package; the text says which command failed and how."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One unpacked kernel."""

    release: str  # as uname -r says it
    image: Path  # loaded by a boot loader
    modules: tuple[Path, ...]  # in the order in which they can be loaded
    busybox: bytes  # a shell that needs nothing else


def debian_kernel(version: str = "6.1") -> Kernel:
    """The newest kernel of `version` that Debian has for this release; from the cache if there is one.

    Raises FetchError.
    """
    CACHE.mkdir(exist_ok=True)
    found = sorted(CACHE.glob(f"linux-image-{version}.*"))
    directory = found[-1] if found else _unpack(_package_of(version), _OF_KERNEL)
    (image,) = directory.glob("boot/vmlinuz-*")
    shell = CACHE / "busybox-static"
    if not shell.is_dir():
        _unpack("busybox-static", r"bin/busybox")
    release = image.name.removeprefix("vmlinuz-")
    return Kernel(release, image, _in_order(directory), (shell / "bin/busybox").read_bytes())


def _package_of(version: str) -> str:
    command = ["apt-cache", "show", "linux-image-amd64"]
    pattern = rf"linux-image-{re.escape(version)}\.\S*-amd64"
    known = re.findall(pattern, subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    if not known:
        _run("apt-get", "-qq", "update")
        known = re.findall(pattern, _run(*command))
    if not known:
        raise FetchError(
            f"linux-image-amd64 is no Linux {version} here: Debian 12's package lists are needed"
        )
    return str(known[0])


def _unpack(package: str, wanted: str) -> Path:
    """Fetch and unpack the files whose paths match `wanted`; the result is whole or not there."""
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package, directory=work)
        (fetched,) = Path(work).glob("*.deb")
        whole = Path(work) / "whole"
        unpacking = ["dpkg-deb", "--fsys-tarfile", str(fetched)]
        with (
            subprocess.Popen(unpacking, stdout=subprocess.PIPE) as reader,
            tarfile.open(fileobj=reader.stdout, mode="r|") as packed,
        ):
            for member in packed:
                if member.isfile() and re.match(wanted, member.name.removeprefix("./")):
                    packed.extract(member, whole)
        if reader.returncode:
            raise FetchError(f"{fetched.name} cannot be unpacked: dpkg-deb ended with {reader.returncode}")
        target = CACHE / package
        if not target.exists():  # else another run of the tests was faster
            whole.rename(target)
        return target


def _run(*command: str, directory: str | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    if done.returncode:
        raise FetchError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def _in_order(directory: Path) -> tuple[Path, ...]:
    known = {_name(path.stem): path for path in directory.glob("lib/modules/**/*.ko")}
    ordered: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in ordered or name not in known:  # not a module: it is built in
            return
        for needed in _needed_by(known[name]):
            add(needed)
        ordered[name] = known[name]

    for name in WANTED:
        add(name)
    return tuple(ordered.values())


def _needed_by(module: Path) -> list[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    names = found[1].decode().split(",") if found else []
    return [_name(name) for name in names if name]


def _name(name: str) -> str:
    return name.replace("-", "_")
