"""The layouts of maps.py are those of bpf/locum.h, as the object's BTF has them, and so are the codes."""

import json
import re
import struct
import subprocess
from typing import Any

import pytest

from locum.dataplane.kernel import groups, translation
from locum.dataplane.layout import entries, maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.model.frames import OUTER_HOPS
from locum.dataplane.plane import OBJECT

STRUCTS = {
    "locum_tunnel": maps.TUNNEL,
    "locum_acceptance_key": maps.ACCEPTANCE_KEY,
    "locum_acceptance": maps.ACCEPTANCE,
    "locum_outbound_key": maps.OUTBOUND_KEY,
    "locum_flow_key": maps.FLOW_KEY,
    "locum_entry": entries.ENTRY,
    "locum_translation_entry": entries.TRANSLATION_ENTRY,
    "locum_change": entries.CHANGE,
    "locum_source": maps.SOURCE,
    "locum_link_network": maps.LINK_NETWORK,
    "locum_counter": maps.COUNTER,
    "locum_settings": maps.SETTINGS,
    "locum_own_addresses": maps.OWN_ADDRESSES,
    "locum_path": maps.PATH,
    "locum_inner_mtus": maps.INNER_MTUS,
    "locum_held": maps.HELD,
    "locum_logged": maps.LOGGED,
    "locum_rules_head": rule_layout.HEAD,
    "locum_filter_key": rule_layout.FILTER_KEY,
    "locum_rule_key": rule_layout.RULE_KEY,
    "locum_fragment_key": rule_layout.FRAGMENT_KEY,
    "locum_fragment": rule_layout.FRAGMENT,
    "locum_translation_key": translation.KEY,
    "locum_translation": translation.VALUE,
    "locum_translated": translation.TRANSLATED,
    "locum_translated_fragment": translation.TRANSLATED_FRAGMENT,
    "locum_group_key": groups.KEY,
    "locum_group_link": groups.LINK,
}
OFFSETS = {
    "locum_tunnel": {"source": 0, "destination": 16, "gre_key": 32, "source_port": 36, "destination_port": 38}
    | {"encapsulation": 40, "has_key": 41, "local": 42},
    "locum_binding": {"verdict": 0, "tunnels": 1, "flags": 2, "local": 3, "tunnel": maps.BINDING_HEAD.size},
    "locum_binding_more": {"peer": 0, "peer_tunnel": 16, "others": 16 + maps.TUNNEL.size}
    | {"weights": 16 + maps.MAX_TUNNELS * maps.TUNNEL.size},
    "locum_rule": {"parts": 0, "family": 1, "verdict": 2, "candidates": 3, "protocol": 4, "dscp": 6}
    | {"source_port": 8, "destination_port": 12, "spi": 16, "flow_label": 24, "source": 32}
    | {"destination": 64, "tunnel": rule_layout.MATCH.size, "weight": rule_layout.MATCH.size + 4}
    | {"identifier": rule_layout.MATCH.size + 12},
    "locum_rules_few": {"rule": rule_layout.HEAD.size}
    | {"tunnel": rule_layout.HEAD.size + rule_layout.FEW * rule_layout.RULE_SIZE},
    "locum_fragments": {"place": 0},
    "locum_rules_many": {"rule": rule_layout.HEAD.size}
    | {"tunnel": rule_layout.HEAD.size + rule_layout.MANY * rule_layout.RULE_SIZE},
    "locum_filter_few": {"rule": rule_layout.HEAD.size},
    "locum_rule_key": {"home_address": 0, "place": 16, "identifier": 18},
    "locum_fragment_key": {"home_address": 0, "place": 16},
    "locum_fragment": {"source": 0, "destination": 16, "time": 32, "identification": 40, "spi": 44}
    | {"source_port": 48, "destination_port": 50, "header": 52, "protocol": 53, "known": 54},
    "locum_acceptance_key": {"outer_source": 0, "home_address": 16, "side": 32, "keyed": 34, "gre_key": 36},
    "locum_acceptance": {"next_hop": 0, "ifindex": 16},
    "locum_outbound_key": {"home_address": 0, "ifindex": 16},
    "locum_flow_key": {"local": 0, "peer": 16, "local_port": 32, "peer_port": 34, "protocol": 36},
    "locum_settings": {"tap_ifindex": 0, "uses": 4},
    "locum_translation_key": {"home_address": 0, "tunnel": 16},
    "locum_translation": {"interface_address": 0, "epoch": 16},
    "locum_entry": {"word": 0, "counter": 8},
    "locum_translation_entry": {"word": 0, "towards": 8, "back": 24},
    "locum_change": {"key": 0, "word": 40, "result": 48},
    "locum_group_key": {"group": 0, "ifindex": 16},
    "locum_group_link": {"ifindex": 0, "address": 4},
    "locum_group": {"count": 0, "links": groups.HEAD.size},
    "locum_logged": {"second": 0, "left_out": 8, "sent": 16, "most": 20},
    "locum_held": {
        "flow": 0,
        "time": 40,
        "length": 48,
        "gso_size": 52,
        "ifindex": 56,
        "reason": 60,
        "rule": 62,
    },
}


@pytest.fixture(scope="module")
def types() -> list[dict[str, Any]]:
    command = ["bpftool", "-j", "btf", "dump", "file", str(OBJECT)]
    found: dict[str, list[dict[str, Any]]] = json.loads(subprocess.check_output(command))
    return found["types"]


def struct_named(types: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [t for t in types if t["kind"] == "STRUCT" and t["name"] == name]
    return found


@pytest.mark.parametrize("name", STRUCTS)
def test_sizes(types: list[dict[str, Any]], name: str) -> None:
    assert struct_named(types, name)["size"] == STRUCTS[name].size


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets(types: list[dict[str, Any]], name: str) -> None:
    members = {m["name"]: m["bits_offset"] // 8 for m in struct_named(types, name)["members"]}
    assert {field: members[field] for field in OFFSETS[name]} == OFFSETS[name]


def test_rule_sizes(types: list[dict[str, Any]]) -> None:
    sizes = {
        "locum_rule": rule_layout.RULE_SIZE,
        "locum_rules_few": rule_layout.FEW_SIZE,
        "locum_rules_many": rule_layout.MANY_SIZE,
        "locum_filter_few": rule_layout.FILTER_FEW_SIZE,
        "locum_filter_many": rule_layout.FILTER_MANY_SIZE,
        "locum_fragments": rule_layout.FRAGMENT_PLACES * rule_layout.FRAGMENT.size,
    }
    assert {name: struct_named(types, name)["size"] for name in sizes} == sizes


def test_group_size(types: list[dict[str, Any]]) -> None:
    assert struct_named(types, "locum_group")["size"] == groups.SIZE


def first_after_reasons(header: str) -> int:
    """The value of REASON_COUNT, which follows the reason before it as C counts."""
    body = header.partition("enum locum_reason {")[2].partition("};")[0]
    *reasons, (last, number) = re.findall(r"^\t(\w+)(?: = (\d+))?,", body, re.MULTILINE)
    assert last == "REASON_COUNT" and not number, "it counts itself, as the last"
    return int(reasons[-1][1]) + 1


def test_codes() -> None:
    header = (OBJECT.parents[4] / "bpf" / "locum.h").read_text()
    for code in (*maps.Outcome, *(r for r in maps.Reason if r is not maps.Reason.NONE)):
        assert f"{code.name} = {code.value}," in header
    assert first_after_reasons(header) == len(maps.Reason), "the header and Reason have other reasons"
    for order, prefix in ((maps.VERDICTS, ""), (maps.FLOW_VERDICTS, "FLOW_"), (maps.ENCAPSULATIONS, "")):
        for value, item in enumerate(order):
            assert f"{prefix}{item.name} = {value}" in header
    for part in rule_layout.Part:
        assert f"#define LOCUM_{part.name} {part.value}\n" in header
    for number, table in enumerate(entries.ENTRIES):
        assert f"CHANGE_{table.upper()} = {number}," in header
    for name, word in (("THERE", entries.THERE), ("LARGE", entries.LARGE)):
        assert f"#define LOCUM_{name} (1ULL << {word.bit_length() - 1})" in header
    assert f"#define LOCUM_CHANGES {entries.CHANGES}\n" in header
    for place in rule_layout.Place:
        assert f"{place.name} = {place.value}" in header
    for name in ("FLAG_RULES", "FLAG_SHARED", "FLAG_LOCAL", "FLAG_VISITED"):
        assert f"#define LOCUM_{name.removeprefix('FLAG_')} {getattr(maps, name)}\n" in header
    for name in (
        "MARK_MTU",
        "MARK_RELEASED",
        "MARK_COPY",
        "MARK_LOCAL",
        "MARK_ANSWER",
        "MARK_VOID",
        "MARK_SIGNALLING",
        "MARK_PROXY",
    ):
        assert f"LOCUM_{name} {getattr(maps, name):#x}" in header
    assert f"#define OUTER_HOPS {OUTER_HOPS}" in (OBJECT.parents[4] / "bpf" / "tunnel.h").read_text()
    assert struct.calcsize("<I") == maps.WORD.size
