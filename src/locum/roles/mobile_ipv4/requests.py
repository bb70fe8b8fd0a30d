"""Registration requests (RFC 5944 section 3.3) as registrations.

It must not know whether a request is permitted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.registration import (
    NO_OPTIONS,
    BindingIdentifier,
    ContextTransferRequest,
    HomePrefix,
    Options,
    RefusalReason,
    Registration,
    RegistrationFlag,
    StandInRole,
    UdpTunnelRequest,
)
from locum.roles.mobile_ipv4.agent_options import agent_spi, revocation_support
from locum.roles.mobile_ipv4.key_grants import asked_agent_spi, asked_spi
from locum.roles.mobile_ipv4.proofs import aaa_proof, proofs
from locum.roles.mobile_ipv4.rule_changes import RuleReader
from locum.wire.errors import WireError
from locum.wire.mobile_ip import extensions as wire
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    Extension,
    FlowBinding,
    InnerEncapsulation,
    Ipv6PrefixRequest,
    Multipath,
    VendorCritical,
    VendorNormal,
)
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest
from locum.wire.mobile_ip.vendor import (
    DefaultCareOfAddress,
    FlowRule,
    MnpsRole,
    TransferContext,
    VendorValue,
    Weight,
    decode_vendor,
)
from locum.wire.takes import Takes

_FLAGS = tuple(RegistrationFlag(bits) for bits in range(256))


def read_request(message: bytes) -> Registration:
    """The registration in the payload of a UDP datagram. Raises WireError.

    An extension that is unreadable although its format is known becomes the registration's `problem`, and so does a poorly
    formed one after the mobile-home authentication: the request is authentic up to there, and can be refused (code 134).
    """
    try:
        return registration(RegistrationRequest.decode(message))
    except WireError as error:
        if error.reason == "unknown-extension":
            raise
        intact = RegistrationRequest.decode_intact(message)
        if intact.authentication(AuthKind.MN_HA) is None:
            raise
    return replace(
        registration(intact), options=Options(nai=intact.mobile_nai, problem=RefusalReason.MALFORMED)
    )


def registration(request: RegistrationRequest) -> Registration:
    """The request as a neutral registration."""
    mobile, agent = proofs(request)
    return Registration(
        request.home_address,
        request.home_agent,
        request.care_of_address,
        request.lifetime,
        request.identification,
        _FLAGS[request.flags],
        mobile,
        agent,
        _options(request) if len(request.extensions) > 1 else NO_OPTIONS,  # one is the authentication
        aaa_proof(request) if mobile is None else None,
    )


def _options(request: RegistrationRequest) -> Options:
    nai = request.mobile_nai
    said = request.said_to_home
    problem = _unknown_critical(request, said)
    if problem is not None:
        return Options(nai=nai, problem=problem)
    try:
        return _read(request, said, nai)
    except WireError:
        return Options(nai=nai, problem=RefusalReason.MALFORMED)


def _unknown_critical(request: RegistrationRequest, said: tuple[Extension, ...]) -> RefusalReason | None:
    """RFC 3115: critical vendor extensions, none of which is known here."""
    if any(isinstance(extension, VendorCritical) for extension in said):
        return RefusalReason.UNKNOWN_CRITICAL_OPTION
    if any(isinstance(extension, VendorCritical) for extension in request.extensions):
        return RefusalReason.UNKNOWN_CRITICAL_OPTION_OF_AGENT
    return None


def _read(request: RegistrationRequest, said: tuple[Extension, ...], nai: str | None) -> Options:
    """The options in the extensions that the registrant's authentication protects. Raises WireError."""
    binding: BindingIdentifier | None = None
    prefixes: list[HomePrefix] = []
    proposed: IPv4Address | None = None
    rules = RuleReader()
    own = _OwnOptions()
    for extension in said:
        if isinstance(extension, FlowBinding):
            rules.binding(extension)
            continue
        rules.other()
        if isinstance(extension, VendorNormal):
            value = decode_vendor(extension)
            if isinstance(value, FlowRule):
                rules.name(value)
            elif value is not None:
                own.take(value)
        elif isinstance(extension, Multipath):
            binding = BindingIdentifier(extension.binding, extension.bulk, extension.overwrite)
        elif isinstance(extension, wire.DynamicHomeAgent):
            if extension.use is wire.HomeAgentUse.REQUESTED:
                proposed = extension.address
        elif isinstance(extension, Ipv6PrefixRequest):
            prefixes.append(HomePrefix(extension.prefix, extension.prefix_length))
    if not own.weight:
        raise WireError("weight", 0, "range")
    by_end = said if request.flags & Flag.D else request.protected(AuthKind.FA_HA)[len(said) :]
    return Options(
        nai=nai,
        prefixes=tuple(prefixes),
        binding=binding,
        weight=own.weight,
        stand_in=own.stand_in,
        default=own.default,
        rules=rules.changes(),
        transfer=own.transfer,
        udp=_udp(by_end),
        revocations=revocation_support(by_end),
        proposed=proposed,
        key_spi=asked_spi(said),
        agent_key_spi=asked_agent_spi(said),
        agent_spi=None if request.flags & Flag.D else agent_spi(by_end),
    )


@dataclass(slots=True)
class _OwnOptions:
    """Locum's own values in vendor extensions; the last of each kind counts."""

    weight: int = 1
    stand_in: StandInRole | None = None
    default: Addr | None = None
    transfer: ContextTransferRequest | None = None

    def take(self, value: VendorValue) -> None:
        match value:
            case Weight():
                self.weight = value.weight
            case MnpsRole():
                self.stand_in = StandInRole(value.interface_address, value.takes is Takes.RULED)
            case DefaultCareOfAddress():
                self.default = value.address
            case TransferContext():
                self.transfer = ContextTransferRequest(value.access_node, value.towards)


def _udp(said: Iterable[Extension]) -> UdpTunnelRequest | None:
    for extension in said:
        if isinstance(extension, wire.UdpTunnelRequest):
            return UdpTunnelRequest(extension.force, extension.encapsulation is InnerEncapsulation.IP)
    return None
