"""Audio decoded by stock programs of this host, confined (A9)."""

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path
from random import Random

import pytest

from locum.node.apps import decoding
from locum.node.apps.decoding import DECODERS, FFMPEG, FLAC, DecodeError, Decoder, decoded, decoder
from locum.node.apps.disk import Descriptor
from locum.node.apps.wav import HEAD
from locum.roles.app_network import AUDIO
from tests.node.apps.driven import Driven
from tests.node.apps.world import install

SAMPLES = Random(5).randbytes(400_000)
MOST = 1 << 20


def song(folder: Path, samples: bytes = SAMPLES) -> Path:
    """A file of FLAC, by the stock encoder."""
    with wave.open(str(folder / "song.in.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(samples)
    subprocess.run(
        ["flac", "--silent", "-f", "-o", str(folder / "song"), str(folder / "song.in.wav")], check=True
    )
    return folder / "song"


def samples_of(path: Path) -> bytes:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 44100)
        return file.readframes(file.getnframes())


async def run(source: Path, target: Path, form: str = "flac", most: int = MOST) -> str:
    with source.open("rb") as one, target.open("w+b") as other:
        (reason, *_) = await decoded(form, most, Descriptor(one.fileno()), Descriptor(other.fileno()))
    return str(reason)


@pytest.mark.parametrize("one", [one for one in DECODERS if shutil.which(one.name)], ids=lambda one: one.name)
async def test_stock_decoder_gives_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: Decoder
) -> None:
    monkeypatch.setattr(decoding, "DECODERS", (one,))
    assert await run(song(tmp_path), tmp_path / "out") == ""
    assert samples_of(tmp_path / "out") == SAMPLES


async def test_audio_that_is_a_bomb_is_bounded(tmp_path: Path) -> None:
    packed = song(tmp_path, bytes(8 << 20))
    assert packed.stat().st_size < 100_000
    assert await run(packed, tmp_path / "out") == f"it decodes to more than {MOST} bytes"
    assert (tmp_path / "out").stat().st_size <= MOST


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
async def test_damaged_audio_says_so(tmp_path: Path, damage: str) -> None:
    packed = song(tmp_path)
    content = bytearray(packed.read_bytes())
    match damage:
        case "cut":
            del content[len(content) // 2 :]
        case "changed":
            content[len(content) // 2] ^= 0xFF
        case "other":
            content = bytearray(b"fLaC" + bytes(10_000))
    packed.write_bytes(content)
    assert (await run(packed, tmp_path / "out")).startswith("it cannot be decoded: ")


@pytest.mark.parametrize("form", AUDIO)
def test_missing_programs_are_named_by_package(form: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decoder(form, path="/nonexistent")
    wanted = "flac or ffmpeg" if form == "flac" else "ffmpeg"
    assert str(caught.value).endswith(f"decodes {form}: install the package {wanted} there")


def test_small_program_comes_first(tmp_path: Path) -> None:
    for one in (FLAC, FFMPEG):
        (tmp_path / one.name).write_text("#!/bin/sh\n")
        (tmp_path / one.name).chmod(0o755)
    assert decoder("flac", path=str(tmp_path))[1] is FLAC
    assert decoder("mp3", path=str(tmp_path))[1] is FFMPEG


# Confinement: the decoder is a script -------------------------------------------------------------------------------


async def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> str:
    monkeypatch.setattr(decoding, "DECODERS", (Decoder("sh", AUDIO, ("-c", script)),))
    (tmp_path / "in").write_bytes(b"content")
    return await run(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    "script, word",
    [
        ("cat /etc/passwd >&2; exit 3", "No such file"),
        ("ls /root /home /proc/1 /dev/tty /var >&2; exit 3", "cannot access"),
        ("echo x > /usr/bin/new; exit 3", "Read-only"),
        ("echo x > /new; exit 3", "Read-only"),
        ("kill -9 1 2>&1; echo still here >&2; exit 3", "still here"),
        ("id -u >&2; exit 3", "it cannot be decoded: 18790"),
        ("/usr/bin/perl -e '$n = 2 << 30; $x = \"a\" x $n' >&2; exit 3", "emory"),
        ("yes", f"more than {MOST} bytes"),
        ("exit 0", "no WAV file"),
        ("kill -11 $$", "status 139"),
    ],
)
async def test_decoder_has_nothing_but_its_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, word: str
) -> None:
    reason = await scripts(tmp_path, monkeypatch, script)
    assert reason and word in reason, reason
    assert (tmp_path / "out").stat().st_size <= MOST


@pytest.mark.parametrize(
    "script, word", [("while :; do :; done", "processor time"), ("yes >&2", "bytes of errors")]
)
async def test_endless_decoder_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, word: str
) -> None:
    monkeypatch.setattr(decoding, "PROCESSOR", 1)
    assert word in await scripts(tmp_path, monkeypatch, script)


async def test_decoder_that_waits_ends_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "PATIENCE", 3.0)
    mark = f"7{tmp_path.stat().st_ino}"
    reason = await scripts(tmp_path, monkeypatch, f"setsid sleep {mark} & sleep {mark} & wait")
    assert reason == "decoding it takes more than 3 seconds"
    async with asyncio.timeout(60):
        while (
            mark in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        ):
            await asyncio.sleep(0.1)


def test_decoder_killed_while_it_begins_leaves_nothing() -> None:
    """Its child is killed with it, or ends by itself, however soon that is."""
    limits = [str(number) for number in (decoding.MEMORY, 60, MOST)]
    command = [
        sys.executable,
        "-P",
        "-m",
        "locum.apps.shell.decoding",
        *limits,
        shutil.which("sleep"),
        "3600",
    ]
    for turn in range(8):
        with subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL) as begun:
            children = Path(f"/proc/{begun.pid}/task/{begun.pid}/children")
            while not (found := children.read_text().split()) and begun.poll() is None:
                time.sleep(0.0005)
            time.sleep(turn * 0.001)
            left = [os.pidfd_open(int(child)) for child in found]
            begun.kill()
        for child in left:
            ended, _, _ = select.select([child], [], [], 60)
            if not ended:
                signal.pidfd_send_signal(child, signal.SIGKILL)
            os.close(child)
            assert ended, f"it goes on, killed in turn {turn}"


async def test_forks_of_a_decoder_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "for i in $(seq 100); do sleep 60 & done; echo all >&2; exit 3"
    reason = await scripts(tmp_path, monkeypatch, script)
    assert "fork" in reason


# By a proxy -----------------------------------------------------------------------------------------------------------


async def test_proxy_has_its_file_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process counts what the decoder has written."""
    install(tmp_path, monkeypatch)
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(song(tmp_path), folder / "song")
    driven = await Driven(folder).begin()
    driven.do(["Decode", "song", "song.wav", "flac", MOST])
    event = await driven.wait("Decoded")
    assert (event["to"], event["reason"]) == ("song.wav", "") and event["size"] == len(SAMPLES) + 44
    driven.do(["Decode", "none", "song.wav", "flac", MOST])
    assert (await driven.wait("Failed"))["file"] == "none"
    driven.do(["Load", "song.wav", 0, HEAD])
    assert (await driven.wait("Loaded"))["length"] == HEAD
    await driven.end()
    assert samples_of(folder / "song.wav") == SAMPLES


async def test_one_proxy_leaves_decoders_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for many files, each of which takes long."""
    install(tmp_path, monkeypatch)
    before = asyncio.all_tasks()
    monkeypatch.setattr(decoding, "_turns", None)
    script = "read word; test $word = slow && sleep 3600; echo done >&2; exit 3"
    monkeypatch.setattr(decoding, "DECODERS", (Decoder("sh", AUDIO, ("-c", script)),))
    greedy, other = await Driven(tmp_path / "greedy").begin(), await Driven(tmp_path / "other").begin()
    files = [f"slow{number}" for number in range(2 * decoding.AT_ONCE)]
    greedy.do(*(["Append", file, "slow\n"] for file in files))
    greedy.do(*(["Decode", file, f"{file}.wav", "flac", MOST] for file in files))
    async with asyncio.timeout(60):
        while not (tmp_path / "greedy" / "slow0.wav").exists():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    other.do(["Append", "quick", "quick\n"], ["Decode", "quick", "quick.wav", "flac", MOST])
    assert (await other.wait("Decoded"))["reason"] == "it cannot be decoded: done"
    greedy.process.kill()
    await other.end()
    async with asyncio.timeout(60):
        while not asyncio.all_tasks() <= before:  # its decoders end
            await asyncio.sleep(0.01)


async def test_process_that_names_no_audio_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    driven = await Driven(tmp_path / "data").begin()
    driven.do(["Append", "x", "content"], ["Decode", "x", "y", "sh", MOST])
    assert "no such form" in await asyncio.wait_for(asyncio.shield(driven.reason), 60)
