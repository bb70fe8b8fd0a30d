"""The `publish` proxy over updates, restarts and faults, on a virtual clock (A5)."""

import errno
import json

import pytest

from locum.apps.publish import app as module
from locum.apps.publish.app import Publish
from locum.apps.publish.intake import STEP, UPLOADED, version_file
from locum.apps.publish.tally import MAX_PATHS
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import MAX_DETAIL, SettingError, Tell, checked_state
from locum.roles.app_network import Ended, Files, Opened
from tests.apps.publish.world import STARTED, World, archive, split

OLD, NEW = {"page": b"old", "big": b"o" * 900_000}, {"page": b"new!", "more": b"more"}
ASK = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"


def world(**table: JSON) -> World:
    return World({UPLOADED: archive(OLD)}, **table)


def result(one: World) -> dict[str, object]:
    found = checked_state(one.app.end(now=one.now))["result"]
    assert isinstance(found, dict)
    return found


def test_update_takes_over_at_once() -> None:
    one = world()
    number = one.connect()
    assert one.ask(number, ASK).endswith(b"old")
    first = split(one.get("/page"))[1]
    one.upload(NEW)
    assert one.ask(number, ASK).endswith(b"new!")
    status, second, _body = split(one.get("/page", f"If-Modified-Since: {first['last-modified']}"))
    assert status == 200 and second["etag"] != first["etag"]
    assert split(one.get("/page", f"If-None-Match: {first['etag']}"))[0] == 200
    assert split(one.get("/big"))[0] == 404
    assert [tell.kind for tell in one.told] == ["published", "published"]
    assert list(one.files) == [version_file(int(STARTED) + 1)]


def test_request_gets_the_version_that_it_began_with() -> None:
    one = world()
    one.takes = False
    number = one.connect()
    one.say(number, b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" + ASK)
    one.upload(NEW)
    assert split(one.get("/more"))[0] == 200
    assert len(one.files) == 2
    one.takes = True
    one.drain(number)
    _status, _fields, rest = split(bytes(one.received[number]))
    assert rest[:900_000] == OLD["big"] and rest.endswith(b"new!")
    assert len(one.files) == 1


def test_old_version_serves_while_a_new_one_is_read() -> None:
    one = world()
    one.slow = True
    one.upload(NEW)
    assert one.get("/page").endswith(b"old")
    one.go_on()
    assert one.get("/page").endswith(b"new!")


@pytest.mark.parametrize(
    "damaged", [b"no archive at all" * 99, archive(NEW)[:600], archive({"../x": b""}), b""]
)
def test_broken_update_leaves_the_old_version(damaged: bytes) -> None:
    one = world()
    one.files[UPLOADED] = damaged
    one.happen(Files([(name, len(content)) for name, content in one.files.items()]))
    assert one.get("/page").endswith(b"old")
    assert one.told[-1].kind == "refused" and one.told[-1].detail["reason"]
    assert len(one.files) == 1
    one.upload(NEW)
    assert one.get("/page").endswith(b"new!")


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_update_that_is_not_durable_is_refused(error: int) -> None:
    one = world()
    one.faults[version_file(int(STARTED) + 1)] = error
    one.upload(NEW)
    assert one.get("/page").endswith(b"old")
    assert one.told[-1].kind == "refused"


def test_second_update_during_the_first() -> None:
    one = world()
    one.slow = True
    one.upload(NEW)
    one.upload({"page": b"newest"})
    one.go_on()
    assert one.get("/page").endswith(b"newest")
    assert len(one.files) == 1


def test_another_process_goes_on() -> None:
    one = world()
    one.get("/page")
    first = split(one.get("/page"))[1]
    one.advance(20.0)
    one.start({}, one.kept)
    status, second, body = split(one.get("/page"))
    assert (status, body) == (200, b"old")
    assert second["last-modified"] == first["last-modified"] and second["etag"] == first["etag"]
    assert result(one)["requests"] == 3


def test_process_that_died_in_an_update_falls_back() -> None:
    """Both archives are there; the newer one is broken, or it is not."""
    for damaged in (True, False):
        data = archive(NEW)[:700] if damaged else archive(NEW)
        one = World({version_file(5): archive(OLD), UPLOADED: data, version_file(3): b"older"})
        assert one.get("/page").endswith(b"old" if damaged else b"new!")
        assert len(one.files) == 1


def test_clock_that_went_back_makes_no_older_version() -> None:
    later = int(STARTED) + 10_000
    one = World({version_file(later): archive(OLD), UPLOADED: archive(NEW)})
    assert list(one.files) == [version_file(later + 1)]


def test_requests_wait_for_the_first_version() -> None:
    one = World()
    assert split(one.get("/page"))[0] == 503
    waits = one.connect()
    one.slow = True
    one.start({})
    one.upload(OLD)
    assert split(one.get("/page"))[0] == 503  # there is none yet
    one.files = {version_file(7): archive(OLD)}
    one.slow = True
    one.start({})
    waits = one.connect()
    one.say(waits, ASK)
    one.say(waits, ASK)
    assert one.received[waits] == b"" and waits in one.paused
    one.advance(100.0)
    one.go_on()
    assert one.received[waits].count(b"200 OK") == 2 and waits not in one.paused


def test_files_of_others_stay() -> None:
    one = World({"notes.txt": b"", UPLOADED: archive(OLD)})
    assert "notes.txt" in one.files


def test_large_archive_is_read_in_steps() -> None:
    content = {"film": bytes(3 * STEP + 5), "page": b"x"}
    one = World({UPLOADED: archive(content)})
    assert one.counts["Load"] == -(-len(archive(content)) // STEP)
    assert split(one.get("/film"))[2] == content["film"]


def test_port_that_is_taken_is_tried_again() -> None:
    one = world()
    one.happen(Ended(1, "Address already in use"))
    assert one.told[-1].kind == "deaf"
    assert result(one)["problem"] == "port 80 of the home address: Address already in use"
    one.advance(6.0)
    assert one.counts["Listen"] == 2
    one.happen(Opened(1))
    assert "problem" not in result(one)


def test_memory_forgets_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    one = world()
    for count in range(35):
        assert one.get(f"/page?{count}").endswith(b"old")
    assert one.get("/page?3").endswith(b"old")


def test_counts_and_lines_are_bounded() -> None:
    files = {f"file-{n}": b"x" for n in range(MAX_PATHS + 200)}
    one = World({UPLOADED: archive(files)}, lines=1.0)
    number = one.connect()
    for name in files:
        one.get(f"/{name}", number=number)
    found = result(one)
    assert found["requests"] == len(files) and found["statuses"] == {"200": len(files)}
    paths = found["paths"]
    assert isinstance(paths, dict) and len(paths) == 50 and found["others"] == len(files) - 50
    assert len(one.notes) < 60
    one.advance(60.0)
    one.get("/file-1", number=number)
    assert f"and {len(files) - 50} more requests" in one.notes


def test_events_of_requests_are_few() -> None:
    one = world()
    for _ in range(300):
        one.get("/page")
        one.advance(1.0)
    told = [tell for tell in one.told if tell.kind == "served"]
    assert 4 <= len(told) <= 6
    counts = [tell.detail["requests"] for tell in told]
    assert all(isinstance(count, int) and count for count in counts)
    assert all(len(json.dumps(dict(tell.detail))) < MAX_DETAIL for tell in told)


def test_idle_proxy_has_no_deadline() -> None:
    one = world()
    one.get("/page", "Connection: close")
    one.advance(120.0)
    assert one.app.deadline() is None
    assert isinstance(one.told[-1], Tell)


@pytest.mark.parametrize(
    "table, key",
    [
        ({"port": 0}, "port"),
        ({"port": 80.5}, "port"),
        ({"port": "80"}, "port"),
        ({"port": True}, "port"),
        ({"index": "index.html"}, "index"),
        ({"index": ["a/b"]}, "index"),
        ({"cache_control": "a\r\nSet-Cookie: b"}, "cache_control"),
        ({"cache": {"*": "a\nb"}}, "cache.*"),
        ({"cache": []}, "cache"),
        ({"types": {"html": "text/html"}}, "types.html"),
        ({"types": {".html": "text"}}, "types..html"),
        ({"charset": "x" * 300}, "charset"),
        ({"head_seconds": 0}, "head_seconds"),
        ({"connections": 256}, "connections"),
        ({"connections": 4, "connections_per_peer": 5}, "connections_per_peer"),
        ({"lines": float("nan")}, "lines"),
        ({"color": "red"}, "color"),
    ],
)
def test_wrong_settings_name_their_key(table: dict[str, JSON], key: str) -> None:
    with pytest.raises(SettingError) as found:
        Publish.settings(table)
    assert found.value.key == key
