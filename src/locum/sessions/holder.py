"""Keeps held sockets open while the stand-in's daemon is dead: the file descriptor store of systemd, or a process like it.

Both speak sd_notify(3): a datagram to NOTIFY_SOCKET with FDSTORE=1, FDNAME=... and the descriptor, or with FDSTOREREMOVE=1.
systemd hands everything back at the next start (LISTEN_FDS); `python -m locum.sessions.holder SOCKET` hands it to any process that
connects to SOCKET, and listens for datagrams at SOCKET.notify. This module must not know what the descriptors are.
"""

import json
import os
import resource
import selectors
import signal
import socket
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

MAX_DESCRIPTORS = 16384  # past it the holder refuses; a stand-in carries at most 4,096 sessions a handover
_DATAGRAM = 4096
_AT_ONCE = 200  # descriptors in one message; the kernel takes 253
_FIRST_LISTEN_FD = 3


class FdStore:
    """The daemon's side. Names are at most 255 printable characters without a colon.

    A descriptor is safe as soon as `store` has returned: it waits in the holder's queue, whatever becomes of us.
    """

    def __init__(self, notify: str, holder: Path | None) -> None:
        self._holder = holder
        address = "\0" + notify[1:] if notify.startswith("@") else notify
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(2.0)
        self._socket.connect(address)

    @classmethod
    def systemd(cls, environment: MutableMapping[str, str]) -> "FdStore | None":
        """The service manager's store (FileDescriptorStoreMax= is set in the unit); None without one."""
        notify = environment.get("NOTIFY_SOCKET")
        return cls(notify, None) if notify else None

    @classmethod
    def holder(cls, path: Path) -> "FdStore":
        """The store of a holder process; raises OSError when it does not run."""
        return cls(f"{path}.notify", path)

    def store(self, name: str, fd: int) -> None:
        """Keeps a duplicate of `fd`; raises OSError when the store does not take it."""
        _check(name)
        # Without FDPOLL=0 systemd throws out a socket whose peer has closed.
        text = f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}".encode()
        socket.send_fds(self._socket, [text], [fd])

    def remove(self, name: str) -> None:
        """Closes the kept duplicates of this name. A socket should be in repair mode: then nothing is sent."""
        _check(name)
        self._socket.send(f"FDSTOREREMOVE=1\nFDNAME={name}".encode())

    def take(self, environment: MutableMapping[str, str] | None = None) -> dict[str, int]:
        """Every kept descriptor by name, as ours; the store keeps its own. Call it once, at start.

        systemd's come by the environment, whose LISTEN_ variables are removed. Raises OSError.
        """
        if self._holder is None:
            return _from_environment(os.environ if environment is None else environment)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(5.0)
            connection.connect(os.fspath(self._holder))
            taken: dict[str, int] = {}
            while True:
                data, fds, _, _ = socket.recv_fds(connection, 1 << 17, _AT_ONCE)
                for fd in fds:
                    os.set_inheritable(fd, False)
                names = json.loads(data) if data else []
                if not names:
                    return taken
                taken.update(zip(names, fds, strict=True))

    def close(self) -> None:
        """End the conversation; stored descriptors stay."""
        self._socket.close()


def _check(name: str) -> None:
    if not 0 < len(name) < 256 or ":" in name or not name.isascii() or not name.isprintable():
        raise ValueError(f"{name!r} is not a name for the descriptor store")


def _from_environment(environment: MutableMapping[str, str]) -> dict[str, int]:
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.pop("LISTEN_FDS", "0"))
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    del environment["LISTEN_PID"]
    taken: dict[str, int] = {}
    for number in range(count):
        fd = _FIRST_LISTEN_FD + number
        os.set_inheritable(fd, False)
        taken[names[number] if number < len(names) else f"unknown-{number}"] = fd
    return taken


class Holder:
    """The holder process: it keeps, forgets and hands back; nothing else."""

    def __init__(self, path: Path) -> None:
        self._paths = (path, Path(f"{path}.notify"))
        self._kept: dict[str, int] = {}
        old_mask = os.umask(0o177)
        try:
            self._listener = _bound(self._paths[0], socket.SOCK_SEQPACKET)
            self._notify = _bound(self._paths[1], socket.SOCK_DGRAM)
        finally:
            os.umask(old_mask)
        self._listener.listen(4)
        self._stop, stop = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.write(stop, b"x"))

    def serve(self) -> None:
        """Runs until SIGTERM or SIGINT, then closes everything."""
        with selectors.DefaultSelector() as selector:
            for sock in (self._listener, self._notify, self._stop):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._stop in ready:
                    break
                self._receive()  # before handing over: earlier sockets belong to it
                if self._listener in ready:
                    self._hand_over()
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _receive(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._notify, _DATAGRAM, _AT_ONCE)
            except BlockingIOError:
                return
            fields = dict(
                line.split("=", 1) for line in data.decode(errors="replace").splitlines() if "=" in line
            )
            name = fields.get("FDNAME", "stored")
            if fields.get("FDSTOREREMOVE") == "1":
                self._forget(name)
            elif fields.get("FDSTORE") == "1" and len(fds) == 1 and len(self._kept) < MAX_DESCRIPTORS:
                self._forget(name)
                self._kept[name] = fds.pop()
            for fd in fds:
                os.close(fd)

    def _forget(self, name: str) -> None:
        fd = self._kept.pop(name, None)
        if fd is not None:
            os.close(fd)

    def _hand_over(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):  # a client that goes away changes nothing
            connection.settimeout(5.0)
            names = list(self._kept)
            for start in range(0, len(names), _AT_ONCE):
                part = names[start : start + _AT_ONCE]
                socket.send_fds(connection, [json.dumps(part).encode()], [self._kept[name] for name in part])
            connection.send(b"[]")


def _bound(path: Path, kind: int) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()
    made = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    made.setblocking(False)
    made.bind(os.fspath(path))
    return made


def main(arguments: list[str]) -> int:
    """`python -m locum.sessions.holder SOCKET`; prints `ready` once it listens."""
    if len(arguments) != 1:
        print("usage: python -m locum.sessions.holder SOCKET", file=sys.stderr)
        return 2
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * MAX_DESCRIPTORS), most))
    holder = Holder(Path(arguments[0]))
    print("ready", flush=True)
    holder.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
