"""Audio among downloads: recognised, decoded by somebody else, and stored like what is unpacked (A9)."""

import json
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.apps.decode.audio import form_of
from locum.apps.decode.limits import FREE, Limits, limits
from locum.apps.decode.unpacking import Broken, Unpacked, Unpacking
from locum.node.apps.wav import wav_lengths
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import Effect, SettingError
from locum.roles.app_network import AUDIO, Append, Decode, Load, Rename, Sync, Truncate

STARTS = {
    "flac": b"fLaC\0\0\0\x22",
    "ogg": b"OggS\0\2",
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "aiff": b"FORM\0\0\0\x2aAIFFCOMM",
    "mp4": b"\0\0\0\x20ftypM4A ",
    "aac": b"\xff\xf1\x50\x80",
    "mp3": b"ID3\4\0",
}


@pytest.mark.parametrize("form", AUDIO)
def test_forms_by_their_first_bytes(form: str) -> None:
    assert form_of(STARTS[form]) == form


@pytest.mark.parametrize("data", [b"\xff\xfb\x90\x64", b"\xff\xf3\x40\xc0", b"\xff\xe3\x18\xc4"])
def test_mp3_without_a_tag(data: bytes) -> None:
    assert form_of(data) == "mp3"


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\x1f\x8b\x08", b"PK\3\4", b"hello", b"\xff\xd8\xff\xe0", b"RIFFxxxxAVI "]
)
def test_other_files_are_no_audio(data: bytes) -> None:
    """Among them a picture (JPEG), whose first byte is that of MP3, and a film."""
    assert form_of(data) is None


@given(st.binary(max_size=200))
def test_lengths_of_any_bytes(data: bytes) -> None:
    try:
        places = wav_lengths(b"RIFF\0\0\0\0WAVE" + data, 1 << 33)
    except ValueError:
        return
    assert places[0] == (4, b"\xff" * 4) and 16 <= places[1][0] < len(data) + 12


def test_lengths_behind_other_chunks() -> None:
    """A chunk of odd length has a byte behind it."""
    head = b"RIFF\xff\xff\xff\xffWAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data\xff\xff\xff\xff"
    assert wav_lengths(head, 132) == [(4, struct.pack("<I", 124)), (28, struct.pack("<I", 100))]


def begun(beginning: bytes, **table: JSON) -> tuple[Unpacking, list[Effect]]:
    found = limits({"audio": True, **table})
    assert found is not None
    unpacking = Unpacking("song.flac", 5000, found)
    (load,) = unpacking.begin()
    assert isinstance(load, Load)
    return unpacking, unpacking.loaded(beginning)


def test_decoded_file_is_stored_and_listed() -> None:
    unpacking, effects = begun(STARTS["flac"])
    part = "song.flac.1.song.flac.wav.part"
    assert effects == [Truncate(part, 0), Decode("song.flac", part, "flac", FREE)]
    assert unpacking.row() == {"state": "unpacking"}
    assert unpacking.decoded(44_144, "") == [Sync(part)]
    listing = unpacking.synced(part)
    (row,) = [json.loads(effect.data) for effect in listing if isinstance(effect, Append)]
    assert row == {"path": "song.flac.wav", "file": part.removesuffix(".part"), "size": 44_144}
    named = unpacking.synced("song.flac.contents.part")
    assert Rename(part, part.removesuffix(".part")) in named
    unpacking.synced("song.flac.contents")
    assert isinstance(unpacking.state, Unpacked) and unpacking.state.size == 44_144


def test_reason_of_a_decoder_is_told_and_nothing_stays() -> None:
    unpacking, _ = begun(STARTS["mp3"])
    effects = unpacking.decoded(10, "no program at the stand-in decodes mp3")
    assert isinstance(unpacking.state, Broken) and "mp3" in unpacking.state.reason
    assert not [effect for effect in effects if isinstance(effect, Sync | Rename)]
    assert unpacking.decoded(10, "") == [], "an answer that comes late"


def test_limits_hold_for_audio() -> None:
    _, effects = begun(STARTS["flac"], max_size=1000)
    assert [effect.most for effect in effects if isinstance(effect, Decode)] == [1000]


def test_audio_is_decoded_on_demand_alone() -> None:
    unpacking = Unpacking("song", 10, Limits())
    unpacking.begin()
    unpacking.loaded(STARTS["flac"])
    assert isinstance(unpacking.state, Broken) and "its format is none of" in unpacking.state.reason


@pytest.mark.parametrize("table", [{"audio": 1}, {"audio": "pcm"}])
def test_wrong_setting_names_its_key(table: Mapping[str, JSON]) -> None:
    with pytest.raises(SettingError) as caught:
        limits(dict(table))
    assert caught.value.key == "decode.audio"
