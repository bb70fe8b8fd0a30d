"""Registration requests that a registrant sends (RFC 5944 section 3.3), signed.

It must not know when a request is sent, nor its content.
"""

from locum.roles.action_values.registration import Options, Registration, RegistrationFlag
from locum.roles.mobile_ipv4.key_grants import ask, ask_for_agent
from locum.roles.mobile_ipv4.rule_changes import write_changes
from locum.roles.mobile_ipv4.signing import signed, signed_for_aaa
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    DynamicHomeAgent,
    Extension,
    HomeAgentUse,
    InnerEncapsulation,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    MobileFaChallenge,
    Multipath,
    Nai,
    RevocationSupport,
    UdpTunnelRequest,
)
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest
from locum.wire.mobile_ip.vendor import (
    DefaultCareOfAddress,
    MnpsRole,
    TransferContext,
    Weight,
    encode_vendor,
)
from locum.wire.takes import Takes


def write_request(
    registration: Registration,
    mobile: Association,
    agent: Association | None,
    challenge: bytes | None,
) -> bytes:
    """The request, signed for the home agent with `mobile`, then for a foreign agent with `agent`.

    One that asks for a key is signed for the AAA server instead, with `mobile` (RFC 3957).
    `challenge` is what the foreign agent has advertised; None: no response is sent. Raises ValueError for addresses
    that are not IPv4.
    """
    co_located = RegistrationFlag.CO_LOCATED in registration.flags
    if registration.care_of.version != 4:
        raise ValueError(f"{registration.care_of} is no care-of address of Mobile IPv4")
    request = RegistrationRequest(
        lifetime=registration.lifetime,
        home_address=registration.home_address,
        home_agent=registration.home_agent,
        care_of_address=registration.care_of,
        identification=registration.identification,
        flags=Flag(int(registration.flags)),
        extensions=tuple(write_options(registration.options, co_located=co_located)),
    )
    keyless = registration.options.key_spi is not None
    message = request.encode() if keyless else signed(request.encode(), AuthKind.MN_HA, mobile)
    if challenge is not None:
        message += MobileFaChallenge(challenge).encode()
    if keyless:  # behind the challenge (RFC 4721 section 3.1)
        message = signed_for_aaa(message, mobile)
    return message if agent is None else signed(message, AuthKind.MN_FA, agent)


def write_options(options: Options, *, co_located: bool) -> list[Extension]:
    """The extensions before the mobile-home authentication. With `co_located` IPv6 is tunnelled to the same address."""
    written: list[Extension] = [] if options.nai is None else [Nai(options.nai)]
    written += [Ipv6PrefixRequest(prefix.prefix, prefix.length) for prefix in options.prefixes]
    if options.prefixes and co_located:
        written.append(Ipv6TunnelingMode())
    if options.proposed is not None:
        written.append(DynamicHomeAgent(HomeAgentUse.REQUESTED, options.proposed))
    if options.udp is not None:
        inner = InnerEncapsulation.IP if options.udp.plain_ip else InnerEncapsulation.GRE
        written.append(UdpTunnelRequest(inner, force=options.udp.forced))
    if options.revocations is not None:
        written.append(RevocationSupport(options.revocations.timestamp, options.revocations.inform))
    context = _context(options)
    if options.stand_in is None:
        written += context
    if options.binding is not None:
        binding = options.binding
        written.append(Multipath(binding.number, bulk=binding.bulk, overwrite=binding.overwrite))
    if options.stand_in is not None:
        takes = Takes.RULED if options.stand_in.ruled else Takes.ALL
        written.append(encode_vendor(MnpsRole(options.stand_in.interface_address, takes)))
    if options.weight != 1:
        written.append(encode_vendor(Weight(options.weight)))
    if options.default is not None:
        written.append(encode_vendor(DefaultCareOfAddress(options.default)))
    if options.stand_in is not None:
        written += context
    if options.key_spi is not None:
        written.append(ask(options.key_spi))
    if options.agent_key_spi is not None:
        written.append(ask_for_agent(options.agent_key_spi))
    return written + write_changes(options.rules)


def _context(options: Options) -> list[Extension]:
    if options.transfer is None:
        return []
    return [encode_vendor(TransferContext(options.transfer.access_node, options.transfer.towards))]
