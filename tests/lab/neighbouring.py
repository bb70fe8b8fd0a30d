"""Messages of the stranger, which has a valid association with a node of the lab."""

import json
import sys
import tomllib

from locum.lab.world import Lab


def say(lab: Lab, messages: list[tuple[str, bytes]], to: str = "an1") -> list[bytes]:
    """Have the stranger say these to a node; return the bodies of the answers."""
    own = lab.topology.address4("evil")
    written = tomllib.loads(lab.configuration.file(to).read_text())
    (entry,) = (
        association for association in written["control"]["association"] if association["peer"] == str(own)
    )
    given = {
        "address": str(own),
        "peer": written["control"]["address"],
        "sender_id": entry["recipient_id"],
        "recipient_id": entry["sender_id"],
        "secret_file": entry["secret_file"],
        "store": str(lab.place.path / "evil.db"),
        "messages": [[path, body.hex()] for path, body in messages],
    }
    file = lab.place.path / "says.json"
    file.write_text(json.dumps(given))
    done = lab.processes.run("evil", [sys.executable, "-m", "locum.lab.forging.neighbour", str(file)], 60)
    assert not done.returncode, done.stderr
    return [bytes.fromhex(body) for body in json.loads(done.stdout)]
