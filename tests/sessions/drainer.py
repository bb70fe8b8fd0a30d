"""The draining part of a stand-in's daemon, for a test that kills it: HOLDER NAME RECORD DIRECTORY."""

import socket
import sys
import time
from pathlib import Path

from locum.sessions.holder import FdStore
from locum.sessions.record import SessionRecord
from locum.sessions.tcp.spool import Budget, Spool
from locum.wire import cbor


def main(holder: str, name: str, record_path: str, directory: str) -> None:
    record = SessionRecord.from_cbor(
        cbor.decode(Path(record_path).read_bytes(), limit=1 << 26, field="record")
    )
    sock = socket.socket(fileno=FdStore.holder(Path(holder)).take()[name])
    sock.setblocking(False)
    budget = Budget(memory_bound=8 << 20, total_bound=1 << 30)
    spool = Spool(
        name, record, memory_dir=Path(directory) / "memory", disk_dir=Path(directory) / "disk", budget=budget
    )
    spool.recover(sock)
    print("ready", flush=True)
    while True:
        if not spool.drain(sock, 50_000):
            time.sleep(0.0005)


if __name__ == "__main__":
    main(*sys.argv[1:])
