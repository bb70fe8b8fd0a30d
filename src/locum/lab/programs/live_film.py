"""The origin behind nginx of films that have no end until the lab ends them: python -m locum.lab.programs.live_film FOLDER.

A file of a fixed size is over too early on a busy machine and lasts too long on a quick one. The answer to a request for
/NAME is random bytes in chunks (RFC 9112 section 7.1) until FOLDER/NAME.end exists; then FOLDER/NAME.sha256 is written.
"""

import hashlib
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 82
END, DIGEST = ".end", ".sha256"
"""Suffixes of the files of a film: the lab makes the first, this program the second, in hex."""
READY = "ready"
"""The file whose existence shows that the origin listens."""
_BLOCK = 32_768
_SEND_BUFFER = 65_536
"""Bytes that wait between origin and nginx at most, so that the film ends soon after it is told to."""


class _Film(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        """Send blocks until the film has to end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        film = self.folder / self.path.strip("/")
        digest = hashlib.sha256()
        while not Path(f"{film}{END}").exists():
            block = os.urandom(_BLOCK)
            digest.update(block)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        draft = Path(f"{film}.new")
        draft.write_text(digest.hexdigest())
        draft.rename(f"{film}{DIGEST}")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: nginx has the log."""


def main() -> None:
    """Serve on the loopback interface."""
    _Film.folder = Path(sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", PORT), _Film) as server:
        (_Film.folder / READY).touch()
        server.serve_forever()


if __name__ == "__main__":
    main()
