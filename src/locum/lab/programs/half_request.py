"""A program that sends half a request, does nothing for as long as it is left alone, then sends the rest.

Run inside a node's namespace: `python -m locum.lab.programs.half_request SOURCE SERVER PATH`. It sends the rest when a line
comes on its standard input, and prints the status line and the SHA-256 of the body. It knows nothing of Mobile IP:
it is the kind of program whose connection has to survive.
"""

import hashlib
import socket
import sys


def ask(source: str, server: str, path: str) -> str:
    """The whole exchange; returns "<status line> <sha256 of the body>"."""
    with socket.create_connection((server, 80), source_address=(source, 0)) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n".encode()
        half = len(request) // 2
        connection.sendall(request[:half])
        print("half", flush=True)
        sys.stdin.readline()
        connection.sendall(request[half:])
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"{head.splitlines()[0].decode()} {hashlib.sha256(body).hexdigest()}"


if __name__ == "__main__":
    print(ask(*sys.argv[1:4]), flush=True)
