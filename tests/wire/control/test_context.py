"""622 and 624: vectors, round trips, the CDDL, and refusals."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import cbor2
import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.wire.control import cddl
from locum.wire.control.context import (
    Acknowledgement622,
    BlockStatus,
    Context624,
    ContextBlock,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
    decode_request_622,
    encode_624,
    encode_acknowledgement_622,
    encode_request_622,
)
from locum.wire.control.context_blocks import (
    BlockContent,
    BlockKind,
    MulticastBlock,
    PagingBlock,
    PolicyBlock,
    RuleEntry,
    RuleList,
    SecurityBlock,
    VisitorBlock,
    decode_block,
    encode_block,
    kind_of,
)
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.wire.strategies import addresses, damaged

HOME, SIX = ip_address("192.0.2.10"), IPv6Address("2001:db8::10")
AGENT, GROUP = IPv4Address("203.0.113.1"), ip_address("233.252.0.1")
UDP = Ipv4Selector(destination_port=(5000, 5999), protocol=(17, 17))
RULES = RuleList((RuleEntry(1, UDP, False),))


def schema(rule: str) -> pycddl.Schema:
    """The description with one rule of it in front."""
    session = "session-record = any\n"
    return pycddl.Schema(f"chosen = {rule}\n{cddl()}\n{session}")


BLOCKS: list[tuple[str, BlockContent]] = [
    (
        "a2 00 a2 00 81 84 01 01 4a 000c0400 1388 176f 1111 f4 01 f5 01 a2 00 80 01 f5",
        PolicyBlock(RULES),
    ),
    ("a1 00 a2 00 80 01 f4", PagingBlock(RuleList((), False))),
    (
        "a2 00 a2 00 81 84 01 01 49 00c80000 1388 176f 11 f4 01 f5 01 81 01",
        PagingBlock(RULES, (1,)),
    ),
    ("a1 00 81 44 e9fc0001", MulticastBlock((GROUP,))),
    (
        "a4 00 190100 01 50 000102030405060708090a0b0c0d0e0f 02 68 686d61632d6d6435 03 65 6e6f6e6365",
        SecurityBlock(256, bytes(range(16)), "hmac-md5", "nonce"),
    ),
    (
        "a6 00 190100 01 43 616263 02 68 686d61632d6d6435 03 65 6e6f6e6365 04 190101 05 f5",
        SecurityBlock(256, b"abc", "hmac-md5", "nonce", 257, short_key=True),
    ),
    (
        "a4 00 44 cb007101 01 02 02 19012c 03 50 20010db8000000000000000000000010",
        VisitorBlock(AGENT, 2, 300, SIX),
    ),
]


@pytest.mark.parametrize(("vector", "content"), BLOCKS[1:], ids=lambda value: type(value).__name__)
def test_block_vectors(vector: str, content: BlockContent) -> None:
    data = bytes.fromhex(vector)
    assert encode_block(content) == data
    assert decode_block(kind_of(content), data) == content


@pytest.mark.parametrize("asking", ["81 02", "82 01 01", "81 00", "81 f5", "01", "80"])
def test_rules_that_ask_for_a_page_are_those_of_the_classifier(asking: str) -> None:
    whole = encode_block(PagingBlock(RULES, (1,)))
    with pytest.raises(WireError):
        decode_block(BlockKind.PAGING, whole[:-2] + bytes.fromhex(asking))


REQUEST = ContextRequest622(HOME, 1000, (1, 5), {1: 7}, Onward.MOVED)
CONTEXT = Context624(
    ContextStatus.OK,
    HOME,
    1000,
    (ContextBlock(3, 2, b"\xa1\x00\x80"), ContextBlock(4, 1, None)),
    {1: BlockStatus.UNCHANGED},
    Onward.TAKEN,
)
ACKNOWLEDGEMENT = Acknowledgement622(ContextStatus.STALE, HOME, 1000, {9: BlockStatus.UNSUPPORTED})


def test_message_vectors() -> None:
    request = bytes.fromhex("a5 00 44c000020a 01 1903e8 02 82 01 05 03 81 82 01 07 04 01")
    assert encode_request_622(REQUEST) == request and decode_request_622(request) == REQUEST
    context = bytes.fromhex(
        "a6 00 00 01 44c000020a 02 1903e8 03 81 82 01 01 04 82 83 03 02 43 a10080 83 04 01 f6 05 02"
    )
    assert encode_624(CONTEXT) == context and decode_624(context) == CONTEXT
    shared = replace(REQUEST, onward=Onward.SHARED)
    assert encode_request_622(shared) == request[:-1] + b"\x03"
    with pytest.raises(WireError):
        decode_request_622(request[:-1] + b"\x04")
    answer = bytes.fromhex("a4 00 04 01 44c000020a 02 1903e8 03 81 82 09 03")
    assert encode_acknowledgement_622(ACKNOWLEDGEMENT) == answer
    assert decode_acknowledgement_622(answer) == ACKNOWLEDGEMENT
    for data, rule in (
        (request, "context-request-622"),
        (context, "context-624"),
        (answer, "acknowledgement-622"),
    ):
        schema(rule).validate_cbor(data)


ranges = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)).map(lambda pair: (min(pair), max(pair)))
selectors = st.builds(Ipv4Selector, source_port=st.none() | ranges, protocol=st.just((17, 17))) | st.builds(
    Ipv6Selector, destination_port=st.none() | ranges
)
entries = st.builds(RuleEntry, st.integers(1, 0xFFFF), selectors, st.booleans())
rule_lists = st.builds(RuleList, st.lists(entries, max_size=4).map(tuple), st.booleans())


def classifiers(rules: RuleList) -> st.SearchStrategy[PagingBlock]:
    """Classifiers with these rules, some of which ask for a page."""
    numbers = sorted({rule.identifier for rule in rules.rules})
    asking = st.lists(st.sampled_from(numbers), unique=True) if numbers else st.just([])
    return st.builds(PagingBlock, st.just(rules), asking.map(tuple))


groups = st.builds(IPv4Address, st.integers(0xE0000000, 0xEFFFFFFF)) | st.builds(
    IPv6Address, st.integers(0xFF << 120, (1 << 128) - 1)
)
contents = st.one_of(
    st.builds(PolicyBlock, rule_lists, rule_lists),
    rule_lists.flatmap(classifiers),
    st.builds(MulticastBlock, st.lists(groups, max_size=5).map(tuple)),
    st.builds(
        SecurityBlock,
        st.integers(256, 0xFFFFFFFF),
        st.binary(min_size=16, max_size=32),
        st.sampled_from(("hmac-md5", "hmac-sha-256")),
        st.sampled_from(("timestamp", "nonce")),
        st.none() | st.integers(256, 0xFFFFFFFF),
        st.booleans(),
    ),
    st.builds(
        VisitorBlock,
        st.builds(IPv4Address, st.integers(0, 0xFFFFFFFF)),
        st.integers(0, 255),
        st.integers(0, 0xFFFF),
        st.none() | st.just(SIX),
    ),
)
kinds = st.integers(1, 255)
versions = st.integers(0, 0xFFFFFFFF)
times = st.integers(0, 1 << 50)
statuses = st.dictionaries(kinds, st.sampled_from(BlockStatus), max_size=5)
blocks = st.builds(ContextBlock, kinds, versions, st.none() | contents.map(encode_block))
requests = st.builds(
    ContextRequest622,
    addresses,
    times,
    st.lists(kinds, max_size=5).map(tuple),
    st.dictionaries(kinds, versions, max_size=5),
    st.sampled_from(Onward),
)
contexts = st.builds(
    Context624,
    st.sampled_from(ContextStatus),
    addresses,
    times,
    st.lists(blocks, max_size=4, unique_by=lambda value: value.kind).map(tuple),
    statuses,
    st.sampled_from(Onward),
)
acknowledgements = st.builds(Acknowledgement622, st.sampled_from(ContextStatus), addresses, times, statuses)


@given(contents)
def test_block_round_trip_and_cddl(content: BlockContent) -> None:
    data = encode_block(content)
    assert decode_block(kind_of(content), data) == content
    schema(f"{kind_of(content).name.lower()}-block").validate_cbor(data)


@given(requests, contexts, acknowledgements)
def test_message_round_trip_and_cddl(
    request: ContextRequest622, context: Context624, acknowledgement: Acknowledgement622
) -> None:
    assert decode_request_622(encode_request_622(request)) == request
    assert decode_624(encode_624(context)) == context
    assert decode_acknowledgement_622(encode_acknowledgement_622(acknowledgement)) == acknowledgement
    SCHEMAS[0].validate_cbor(encode_request_622(request))
    SCHEMAS[1].validate_cbor(encode_624(context))
    SCHEMAS[2].validate_cbor(encode_acknowledgement_622(acknowledgement))


SCHEMAS = [schema(rule) for rule in ("context-request-622", "context-624", "acknowledgement-622")]
encoded = (
    requests.map(encode_request_622)
    | contexts.map(encode_624)
    | acknowledgements.map(encode_acknowledgement_622)
    | contents.map(encode_block)
)


@settings(max_examples=300)
@given(st.binary(max_size=60) | damaged(encoded) | encoded, st.sampled_from(BlockKind))
def test_bytes_give_a_value_or_wire_error(data: bytes, kind: BlockKind) -> None:
    """The CDDL describes every message that a decoder accepts."""
    with suppress(WireError):
        request = decode_request_622(data)
        assert decode_request_622(encode_request_622(request)) == request
        SCHEMAS[0].validate_cbor(data)
    with suppress(WireError):
        context = decode_624(data)
        assert decode_624(encode_624(context)) == context
        SCHEMAS[1].validate_cbor(data)
    with suppress(WireError):
        answer = decode_acknowledgement_622(data)
        assert decode_acknowledgement_622(encode_acknowledgement_622(answer)) == answer
        SCHEMAS[2].validate_cbor(data)
    with suppress(WireError):
        content = decode_block(kind, data)
        assert decode_block(kind, encode_block(content)) == content


def edited(data: bytes, **keys: object) -> bytes:
    body = cbor2.loads(data)
    for name, replacement in keys.items():
        body[int(name[1:])] = replacement
    return cbor2.dumps(body, canonical=True)


ASK, GIVE = encode_request_622(REQUEST), encode_624(CONTEXT)
VISIT = encode_block(VisitorBlock(AGENT, 2, 300))


@pytest.mark.parametrize(
    ("decode", "data", "field", "reason"),
    [
        (decode_request_622, edited(ASK, k0=bytes(5)), "622.home-address", "not-an-address"),
        (decode_request_622, edited(ASK, k1=-1), "622.registered", "range"),
        (decode_request_622, edited(ASK, k2=[0]), "622.wants", "range"),
        (decode_request_622, edited(ASK, k2=[1] * 17), "622.wants", "too-many-items"),
        (decode_request_622, edited(ASK, k3=[[1]]), "622.known", "not-a-pair"),
        (decode_request_622, edited(ASK, k9=1), "622.9", "unknown-key"),
        (decode_624, edited(GIVE, k0=6), "624.status", "range"),
        (decode_624, edited(GIVE, k4=[[1, 0]]), "624.block", "not-a-block"),
        (decode_624, edited(GIVE, k4=[[1, 0, "text"]]), "624.block", "not-octets"),
        (decode_624, edited(GIVE, k4=[[1, 0, bytes(16385)]]), "624.block", "not-octets"),
        (decode_624, edited(GIVE, k4=[[1, 0, b""], [1, 1, b""]]), "624.blocks", "repeated"),
        (decode_624, edited(GIVE, k4=[[1, 1 << 32, b""]]), "624.version", "range"),
        (lambda data: decode_block(BlockKind.VISITOR, data), edited(VISIT, k0=SIX.packed), "block-visitor.address", "family"),
        (lambda data: decode_block(BlockKind.VISITOR, data), edited(VISIT, k2=1 << 16), "block-visitor.lifetime", "range"),
        (lambda data: decode_block(BlockKind.MULTICAST, data), cbor2.dumps({0: [bytes(4)]}), "block-multicast.group", "not-a-group"),
        (lambda data: decode_block(BlockKind.SECURITY, data), cbor2.dumps({0: 255, 1: bytes(16), 2: "a", 3: "b"}), "block-security.spi", "range"),
        (lambda data: decode_block(BlockKind.PAGING, data), cbor2.dumps({0: {0: [[1, 3, b"", True]], 1: True}}), "block-paging.classifier.format", "range"),
    ],
)  # fmt: skip
def test_refusals(decode: Callable[[bytes], object], data: bytes, field: str, reason: str) -> None:
    with pytest.raises(WireError) as refused:
        decode(data)
    assert (refused.value.field, refused.value.reason) == (field, reason)
