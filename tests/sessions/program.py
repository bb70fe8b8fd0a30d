"""A program that knows nothing of Locum: it obeys lines on its standard input, on one TCP connection."""

import hashlib
import os
import random
import socket
import sys


def payload(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def receive(connection: socket.socket, most: int) -> str:
    digest, count, end = hashlib.sha256(), 0, "more"
    while count < most:
        try:
            data = connection.recv(min(most - count, 1 << 20))
        except OSError as error:
            end = error.__class__.__name__
            break
        if not data:
            end = "eof"
            break
        digest.update(data)
        count += len(data)
    return f"{count} {digest.hexdigest()} {end}"


def count(connection: socket.socket, most: int, letter: bytes) -> str:
    """Of very many bytes: how many, and how many of them are this letter."""
    total, found, buffer = 0, 0, bytearray(4 << 20)
    while total < most and (size := connection.recv_into(buffer, min(most - total, len(buffer)))):
        total += size
        found += buffer[:size].count(letter)
    return f"{total} {found}"


def main() -> None:
    connection = socket.socket()
    for line in sys.stdin:
        operation, *words = line.split()
        answer = "done"
        if operation == "connect":
            connection = socket.create_connection((words[0], int(words[1])))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 77000)
        elif operation == "buffer":
            connection.setsockopt(socket.SOL_SOCKET, 32, int(words[0]))  # SO_SNDBUFFORCE
        elif operation == "keepalive":
            for option, value in (
                (socket.TCP_KEEPIDLE, 1),
                (socket.TCP_KEEPINTVL, 1),
                (socket.TCP_KEEPCNT, 1),
            ):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        elif operation == "send":
            try:
                connection.sendall(payload(int(words[0]), int(words[1])))
            except OSError as error:
                answer = error.__class__.__name__
        elif operation == "receive":
            answer = receive(connection, int(words[0]))
        elif operation == "count":
            answer = count(connection, int(words[0]), words[1].encode())
        elif operation == "option":
            level, name, wanted = words
            connection.setsockopt(int(level), int(name), int(wanted) if wanted.isdigit() else wanted.encode())
        elif operation == "options":
            keep = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            patience = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            answer = f"{keep} {patience}"
        elif operation == "shutdown":
            connection.shutdown(socket.SHUT_WR)
        elif operation == "shutdown-receiving":
            connection.shutdown(socket.SHUT_RD)
        elif operation == "shutdown-both":
            connection.shutdown(socket.SHUT_RDWR)
        elif operation == "fork":
            if os.fork() == 0:
                sys.stdin.close()
                signal_forever()
        elif operation == "close":
            connection.close()
        print(answer, flush=True)


def signal_forever() -> None:
    import signal

    signal.alarm(60)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
