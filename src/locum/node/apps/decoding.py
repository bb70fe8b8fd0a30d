"""Decodes a proxy's file of audio by a program of this host, in a confined process of its own (A9).

A proxy cannot start programs. It names two of its files by their descriptors; the decoder gets them as standard input and output.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from locum.node import words
from locum.node.apps.disk import Descriptor
from locum.node.apps.wav import HEAD, wav_lengths
from locum.roles.app_network import AUDIO, KILLED

AT_ONCE = 2
"""Decoders of all proxies that run at the same time."""
MEMORY = 1 << 30
"""Bytes of address space: ffmpeg's libraries take some hundred MiB of it."""
PROCESSOR = 600
"""Seconds of processor time for one file: ffmpeg decodes some hours of music in one minute."""
PATIENCE = 1800.0
"""Seconds for one file."""
PATH = "/usr/local/bin:/usr/bin:/bin"
COMPLAINT = 64 << 10
"""Bytes of its error output; a decoder that says more is ended."""
_SAID = 2000  # bytes of it that are kept


@dataclass(frozen=True, slots=True)
class Decoder:
    """A program of a package of the same name, which decodes its standard input to WAV at its standard output."""

    name: str
    forms: Sequence[str]
    arguments: Sequence[str]


FLAC = Decoder("flac", ("flac",), ("--decode", "--stdout", "--silent", "-"))
FFMPEG = Decoder(
    "ffmpeg",
    AUDIO,
    tuple(
        [
            "-nostdin",
            "-hide_banner",
            "-loglevel",
            "error",
            "-threads",
            "1",
            "-protocol_whitelist",
            "pipe",
            "-i",
            "pipe:0",
            "-map",
            "0:a:0",
            "-vn",
            "-sn",
            "-dn",
            "-c:a",
            "pcm_s16le",
            "-bitexact",
            "-f",
            "wav",
            "pipe:1",
        ]
    ),
)
DECODERS = (FLAC, FFMPEG)
"""The first one that is there, and has the form, is taken."""

_turns: "asyncio.Semaphore | None" = None


class DecodeError(Exception):
    """It cannot be decoded; the text is for users."""


def decoder(form: str, path: str = PATH) -> tuple[str, Decoder]:
    """The path of a program for this form. Raises DecodeError, naming packages to install."""
    able = [one for one in DECODERS if form in one.forms]
    for one in able:
        if (program := shutil.which(one.name, path=path)) is not None:
            return program, one
    names = " or ".join(one.name for one in able)
    raise DecodeError(f"no program at the stand-in decodes {form}: install the package {names} there")


async def decoded(form: str, most: int, source: object, target: object) -> list[object]:
    """Decode to a WAV file of at most so many bytes: an empty text, or a reason. Raises ValueError for what is no file."""
    if form not in AUDIO or most < 0:
        raise ValueError("there is no such form of audio")
    if not isinstance(source, Descriptor) or not isinstance(target, Descriptor):
        raise ValueError("open files are decoded")
    if not all(stat.S_ISREG(os.fstat(one.fd).st_mode) for one in (source, target)):
        raise ValueError("files alone are decoded")
    try:
        program, chosen = decoder(form)
        async with _turn():
            await _run([program, *chosen.arguments], most, source.fd, target.fd)
        _complete(target.fd)
    except (DecodeError, ValueError) as problem:
        return [str(problem)]
    except OSError as problem:
        return [words.reason(problem)]
    return [""]


def _turn() -> asyncio.Semaphore:
    global _turns
    if _turns is None:
        _turns = asyncio.Semaphore(AT_ONCE)
    return _turns


async def _run(command: Sequence[str], most: int, source: int, target: int) -> None:
    """Raises DecodeError or OSError. The decoder is gone afterwards."""
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    limits = [str(number) for number in (MEMORY, PROCESSOR, most)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "locum.apps.shell.decoding",
        *limits,
        *command,
        stdin=source,
        stdout=target,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        start_new_session=True,
    )
    said, count = b"", 0
    try:
        async with asyncio.timeout(PATIENCE):
            assert process.stderr is not None
            while more := await process.stderr.read(_SAID):
                said, count = (said + more)[-_SAID:], count + len(more)
                if count > COMPLAINT:
                    raise DecodeError(f"it cannot be decoded: more than {COMPLAINT} bytes of errors")
            status = await process.wait()
    except TimeoutError:
        raise DecodeError(f"decoding it takes more than {PATIENCE:.0f} seconds") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()  # its end is not seen while output is unread
    if status:
        raise DecodeError(_reason(status, most, said))


def _reason(status: int, most: int, said: bytes) -> str:
    match status - KILLED:
        case signal.SIGXFSZ:
            return f"it decodes to more than {most} bytes"
        case signal.SIGXCPU | signal.SIGKILL:
            return f"decoding it takes more than {PROCESSOR} seconds of processor time"
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    why = "".join(filter(str.isprintable, lines[-1]))[:200] if lines else f"status {status}"
    return f"it cannot be decoded: {why}"


def _complete(target: int) -> None:
    """Write the lengths into the header. Raises ValueError or OSError."""
    for place, data in wav_lengths(os.pread(target, HEAD, 0), os.fstat(target).st_size):
        os.pwrite(target, data, place)
