"""`locum order`: jobs that a device leaves to its stand-in, and their results (A4, A5, A6)."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from locum.cli.orders.files import TransferFailed, Wanted, fetch, send_directory, send_file
from locum.cli.target import Target, json_option, list_command
from locum.node.config.secret_file import SecretFileError, secret_text
from locum.node.control.client import NodeClient, NodeRefused
from locum.node.exits import Exit

_COLUMNS = ("order", "kind", "state", "progress", "files", "bytes", "changed_at", "reason")
_PATIENCE = 700.0  # seconds; the node itself gives up earlier
_DONE = ("done", "collected")
PUBLISH = "publish"
WHEN = ("asleep", "always")
"""Words of `--when`."""
CONSUME = ("replay", "replace", "omit")
"""Words of `--consume`."""


@click.group()
def order() -> None:
    """Jobs for the stand-in: ordered while the device is awake, done while it sleeps, collected afterwards.

    An order begins when the device sleeps (`locum sleep`), and goes on in each sleep until it is done; with `--when always` it begins at
    once, and goes on while the device is awake.
    """


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE each: VALUE is a JSON value, or a text as it is."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"{pair!r} is no setting: KEY=VALUE is expected")
        if key in found:
            raise click.UsageError(f"{key} is there twice")
        try:
            found[key] = json.loads(value, parse_constant=_no_number)
        except ValueError:
            found[key] = value
    return found


def _no_number(word: str) -> Any:
    raise ValueError(word)


_when_option = click.option(
    "--when",
    type=click.Choice(WHEN),
    help="always: also while the device is awake, for packets of its connections and ports alone. "
    "Default: always for downloads if the stand-in can, else asleep.",
)


def _limits(when: str | None, emission: tuple[str, ...] = (), consume: str | None = None) -> dict[str, Any]:
    """The limits of an order (control.cddl, rule app-limits)."""
    found: dict[str, Any] = {} if consume is None else {"consume": consume}
    if when is not None:
        found["when"] = when
    if emission == ("none",):
        return {**found, "emission": []}
    return {**found, "emission": list(emission)} if emission else found


def _add(
    target: Target, name: str, kind: str, settings: dict[str, Any], limits: dict[str, Any] | None = None
) -> None:
    made = target.ask("order add", timeout=60.0, name=name, kind=kind, settings=settings, limits=limits or {})
    if made["warning"]:
        click.echo(f"locum: warning: {made['warning']}", err=True)
    target.output.done(made, f"order {name}: {made['note']}")


def _unsent(problem: str) -> str:
    return f"nothing is ordered, as no file could be sent: {problem}"


_setting_argument = click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")


def _read_password(path: str) -> str:
    """The first line of a file that only its owner may read, or of standard input (-). Raises click.UsageError."""
    try:
        if path == "-":
            text = sys.stdin.readline()
        else:
            text = secret_text(Path(path), "the password there as its first line", "utf-8")
    except UnicodeDecodeError:
        raise click.UsageError("--password-file: standard input is no text") from None
    except SecretFileError as problem:
        raise click.UsageError(f"--password-file: {problem}") from None
    password = text.split("\n", 1)[0].rstrip("\r")
    if not password:
        raise click.UsageError(f"--password-file: {path} holds no password")
    return password


@order.command("add")
@click.argument("kind")
@click.argument("name")
@_setting_argument
@click.option(
    "--send",
    "sent",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file for the proxy, under its own name. May be there several times.",
)
@click.option(
    "--emission",
    multiple=True,
    metavar="RULE",
    help='Packets that the proxy may send, such as "tcp 443"; several times: any of them. "none": no packet.',
)
@click.option("--consume", type=click.Choice(CONSUME), help="Use of received bytes that the proxy consumes.")
@_when_option
@click.option(
    "--password-file", metavar="FILE", help="Its first line is the setting password; - reads standard input."
)
@json_option
@click.pass_obj
def order_add(
    target: Target,
    /,
    kind: str,
    name: str,
    settings: tuple[str, ...],
    sent: tuple[Path, ...],
    emission: tuple[str, ...],
    consume: str | None,
    when: str | None,
    password_file: str | None,
) -> None:
    """Order a proxy of any KIND (`locum app kinds` at the stand-in lists them) with its settings.

    VALUE is JSON (8, true, ["a", "b"], "8"), or else a text as it is. A wrong setting fails at once if the stand-in can be
    reached; otherwise the order fails when the device sleeps.
    """
    given, limits = _settings(settings), _limits(when, emission, consume)
    if password_file is not None:
        if "password" in given:
            raise click.UsageError("either password=... or --password-file")
        given["password"] = _read_password(password_file)
    if not sent:
        _add(target, name, kind, given, limits)
        return
    with NodeClient(target.socket, _PATIENCE) as client:
        made = client.request("order add", name=name, kind=kind, settings=given, limits=limits, later=True)
        try:
            if made["unreached"]:
                raise TransferFailed(_unsent(made["unreached"]))
            size = sum(send_file(client, name, path) for path in sent)
            client.request("order begin", name=name)
        except (TransferFailed, NodeRefused) as problem:
            client.request("order cancel", name=name)
            raise NodeRefused(str(problem)) from None
    target.output.done({**made, "bytes": size}, f"order {name}: {made['note']}")


@order.command()
@click.argument("url")
@_setting_argument
@click.option("--name", help="Name of the order. Default: the last part of the URL.")
@click.option("--sha256", metavar="DIGEST", help="The file has to have this digest.")
@_when_option
@json_option
@click.pass_obj
def download(
    target: Target,
    url: str,
    settings: tuple[str, ...],
    name: str | None,
    sha256: str | None,
    when: str | None,
) -> None:
    """Order a download by HTTP or HTTPS; `locum order fetch` brings the file."""
    given = _settings(settings) | {"url": url} | ({"sha256": sha256} if sha256 else {})
    _add(target, name or _name_of(url), "download", given, _limits(when))


def _name_of(url: str) -> str:
    parts = urlsplit(url)
    last = parts.path.rstrip("/").rpartition("/")[2] or parts.netloc
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)[:64].lstrip(".-") or "download"


@order.command("watch-mail")
@click.argument("host")
@click.option("--user", required=True)
@click.option(
    "--password-file",
    required=True,
    metavar="FILE",
    help="Its first line is the password; - reads standard input.",
)
@click.option("--name", help="Name of the order. Default: mail.")
@click.option("--mailbox", help="Default: INBOX.")
@click.option("--sender", multiple=True, metavar="TEXT", help="Messages whose sender has this text.")
@click.option("--subject", multiple=True, metavar="TEXT", help="Messages whose subject has this text.")
@_when_option
@_setting_argument
@json_option
@click.pass_obj
def watch_mail(
    target: Target,
    /,
    host: str,
    user: str,
    password_file: str,
    name: str | None,
    mailbox: str | None,
    sender: tuple[str, ...],
    subject: tuple[str, ...],
    when: str | None,
    settings: tuple[str, ...],
) -> None:
    """Watch a mailbox of HOST by IMAP: an event for each new message, or for those of a sender or subject."""
    given = _settings(settings) | {
        "host": host,
        "user": user,
        "password": _read_password(password_file),
    }
    for key, value in (("mailbox", mailbox), ("sender", list(sender)), ("subject", list(subject))):
        if value:
            given[key] = value
    _add(target, name or "mail", "mail", given, _limits(when))


list_command(order, "order list", _COLUMNS, "Orders, and how each of them stands.")


@order.command()
@click.argument("name")
@json_option
@click.pass_obj
def show(target: Target, name: str) -> None:
    """One order with its settings and result. Passwords are not shown."""
    target.output.record(target.ask("order show", name=name))


@order.command()
@click.argument("name")
@json_option
@click.pass_obj
def cancel(target: Target, name: str) -> None:
    """Forget an order, unless it runs in a sleep just now, and have its files at the stand-in removed: now, or at the next sleep."""
    gone = target.ask("order cancel", timeout=60.0, name=name)
    target.output.done(gone, f"order {name} is cancelled; its files at the stand-in are {gone['files']}")


@order.command("fetch")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Directory for the files. Default: this one.",
)
@click.option("--keep", is_flag=True, help="Leave the order and its files at the stand-in as they are.")
@click.option("--all", "everything", is_flag=True, help="All files of the order, also unfinished ones.")
@json_option
@click.pass_obj
def order_fetch(target: Target, name: str, directory: Path, keep: bool, everything: bool) -> None:
    """Bring the finished files of an order here. An order that is done ends with this.

    An interrupted transfer goes on where it was. Each file is checked (SHA-256) before it gets its name. Exit code 6: some files
    are here, but not all, or the order is not done yet.
    """
    with NodeClient(target.socket, _PATIENCE) as client:
        found = client.request("order files", name=name)
        if (again := found.get("again")) is not None:
            raise NodeRefused(f"the stand-in cannot be reached: {again}")
        if found["state"] == "collected":
            raise NodeRefused(
                f"order {name} was collected before; its files are not at the stand-in any more"
            )
        rows = [row for row in found["files"] if everything or row["result"]]
        if not rows and not found["missing"]:
            _nothing(client, name, found["state"])
        directory.mkdir(parents=True, exist_ok=True)
        done, failed = _fetch_all(client, name, rows, directory)
        failed += [
            {"file": file, "problem": "it is not at the stand-in any more"} for file in found["missing"]
        ]
        whole = found["state"] in _DONE and not failed
        if whole and not keep and not everything:
            client.request("order collected", name=name)
    target.output.done(
        {"order": name, "state": found["state"], "files": done, "failed": failed}, "\n".join(map(_line, done))
    )
    for row in failed:
        click.echo(f"locum: {row['file']}: {row['problem']}", err=True)
    if not whole:
        if not failed:
            click.echo(f"locum: order {name} is {found['state']}: there may be more later", err=True)
        sys.exit(Exit.PARTIAL if done else Exit.FAILED)


def _nothing(client: NodeClient, name: str, state: str) -> None:
    """Raises NodeRefused unless an order that is done has no files."""
    if state in _DONE:
        return
    reason = client.request("order show", name=name)["reason"]
    raise NodeRefused(f"order {name} is {state}{f': {reason}' if reason else ''}; there is nothing to fetch")


def _fetch_all(
    client: NodeClient, name: str, rows: list[dict[str, Any]], directory: Path
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The files that are here now, and those that are not."""
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for row in rows:
        begun = time.monotonic()
        try:
            new = fetch(client, name, Wanted(row["file"], row["bytes"], row["sha256"]), directory)
        except (TransferFailed, NodeRefused) as problem:
            failed.append({"file": row["file"], "problem": str(problem)})
            continue
        seconds = round(time.monotonic() - begun, 3)
        place = str(directory / row["file"])
        done.append({"file": place, "bytes": row["bytes"], "seconds": seconds, "new": new})
    return done, failed


def _line(row: dict[str, Any]) -> str:
    if not row["new"]:
        return f"{row['file']}: {row['bytes']} bytes, was here already"
    rate = row["bytes"] / max(row["seconds"], 0.001) / 1e6
    return f"{row['file']}: {row['bytes']} bytes in {row['seconds']:.1f} s ({rate:.1f} MB/s)"


@order.command()
@click.argument("name")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the home address. Default: 80.")
@_when_option
@_setting_argument
@json_option
@click.pass_obj
def publish(
    target: Target,
    name: str,
    directory: Path,
    port: int | None,
    when: str | None,
    settings: tuple[str, ...],
) -> None:
    """Have the stand-in serve a DIRECTORY by HTTP from the home address while the device sleeps, or always.

    The content goes up in one go, and is shown whole from the next sleep on, or at once where the order runs. The same command with an order that there is
    already replaces its content alone; the settings of the order may be left out then, and cannot be changed.
    """
    with NodeClient(target.socket, _PATIENCE) as client:
        given = _settings(settings) | ({} if port is None else {"port": port})
        made = _made(client, name, given, _limits(when))
        try:
            size = send_directory(client, name, directory)
            client.request("order begin", name=name)
        except (TransferFailed, NodeRefused) as problem:
            if made is not None:  # nothing has changed
                client.request("order cancel", name=name)
            raise NodeRefused(str(problem)) from None
        always = client.request("order show", name=name)["when"] == "always"
    result = {"order": name, "bytes": size, "new": made is not None}
    served = "from now on" if always else "while the device sleeps"
    target.output.done(result, f"order {name}: {size} bytes are at the stand-in; they are served {served}")


def _made(
    client: NodeClient, name: str, settings: dict[str, Any], limits: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """The new order; None if there is one, whose content is replaced. Raises NodeRefused."""
    known = next((row for row in client.request("order list") if row["order"] == name), None)
    if known is None or known["state"] == "collected":
        made: dict[str, Any] = client.request(
            "order add", name=name, kind=PUBLISH, settings=settings, limits=limits or {}, later=True
        )
        if made["unreached"]:
            client.request("order cancel", name=name)
            raise NodeRefused(_unsent(made["unreached"]))
        return made
    if known["kind"] != PUBLISH:
        raise NodeRefused(f"{name} is an order of kind {known['kind']}; choose another name")
    shown = client.request("order show", name=name)
    there = shown["settings"]
    if limits and limits.get("when", shown["when"]) != shown["when"]:
        raise NodeRefused(f"there is an order {name} already, with another --when; cancel it to change that")
    other = [key for key, value in settings.items() if key not in there or there[key] != value]
    if other:
        raise NodeRefused(
            f"there is an order {name} already, with another {other[0]}; cancel it to change settings"
        )
    return None
