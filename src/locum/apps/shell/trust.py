"""TLS of a proxy's connections: 1.2 or later, certificate and name checked (RFC 9325, RFC 6125).

The certificates of authorities are read before the process is confined, and parsed when the first connection needs them.
"""

import codecs
import socket
import ssl
from pathlib import Path

codecs.lookup("idna")  # which `ssl` asks for with the first name, when the process has no files any more


def bundles(additional: str) -> list[str]:
    """Files of certificates: the host's, if there is one, and the additional one, if it is named."""
    host = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    return [path for path in (host, additional) if path and (path == additional or Path(path).exists())]


class Trust:
    """`additional`: a file of certificates (PEM) besides those of the host; empty: none. Raises OSError."""

    def __init__(self, additional: str = "") -> None:
        codecs.lookup("idna")  # names are read with it, and a confined process imports nothing
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._waiting = [
            Path(path).read_text(encoding="ascii", errors="ignore") for path in bundles(additional)
        ]

    def wrap(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        """The connection encrypted, before its handshake, which is the caller's. Raises OSError or ValueError."""
        while self._waiting:
            self._context.load_verify_locations(cadata=self._waiting.pop())
        return self._context.wrap_socket(
            sock, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
