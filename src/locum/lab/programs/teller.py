"""Accepts so many connections, then says each line of its standard input to all: `python -m locum.lab.programs.teller PORT COUNT`.

It never closes a connection: the reader has to notice every line by its bytes alone.
"""

import socket
import sys


def tell(port: int, count: int) -> None:
    """Until the end of the input, and then until every reader has closed."""
    with socket.create_server(("", port)) as listener:
        readers = [listener.accept()[0] for _ in range(count)]
        while line := sys.stdin.buffer.readline():
            for reader in readers:
                reader.sendall(line)
        for reader in readers:
            reader.recv(1)


if __name__ == "__main__":
    tell(int(sys.argv[1]), int(sys.argv[2]))
