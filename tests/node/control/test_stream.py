"""Many requests under way at once: their results come in order, and no answer is taken for another's."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.node.control.client import NodeClient, NodeRefused


def serve(listener: socket.socket) -> None:
    """Answer pairs of requests in the opposite order; a request with `bad` is refused."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as lines:
        waiting: list[dict[str, object]] = []
        for line in lines:
            waiting.append(json.loads(line))
            if len(waiting) < 2 and not waiting[0].get("alone"):
                continue
            for message in reversed(waiting):
                refused = message.get("bad")
                answer = {"id": message["id"], "ok": not refused, "result": message.get("n"), "error": "bad"}
                connection.sendall(json.dumps(answer).encode() + b"\n")
            waiting.clear()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[NodeClient]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(1)
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    with NodeClient(tmp_path / "s", 20.0) as made:
        yield made
    thread.join(20)
    listener.close()


def test_results_come_in_the_order_of_the_requests(client: NodeClient) -> None:
    assert list(client.stream("x", ({"n": number} for number in range(8)), 2)) == list(range(8))


def test_early_end_leaves_the_connection_usable(client: NodeClient) -> None:
    results = client.stream("x", ({"n": number} for number in range(8)), 4)
    assert next(results) == 0
    results.close()
    assert client.request("x", n=9, alone=True) == 9


def test_refused_request_ends_the_stream(client: NodeClient) -> None:
    requests = [{"n": 0}, {"n": 1, "bad": True}, {"n": 2}, {"n": 3}]
    results = client.stream("x", requests, 4)
    assert next(results) == 0
    with pytest.raises(NodeRefused, match="bad"):
        next(results)
    assert client.request("x", n=9, alone=True) == 9
