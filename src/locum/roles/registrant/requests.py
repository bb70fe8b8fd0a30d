"""Registration requests as actions: lifetime, source address, and the datagram itself (RFC 5944 section 3.6.1).

This module must not know when a request is sent, nor which reply it gets.
"""

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Emit, SendRegistration
from locum.roles.registrant.attachment import Attachment, RegistrationTarget
from locum.roles.registrant.candidates import CareOfCandidates
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.dialogue import RegistrationDialogue


def requested_lifetime(
    configuration: MobileNodeConfiguration,
    target: RegistrationTarget,
    candidates: CareOfCandidates,
    attachment: Attachment,
) -> int:
    """Return the lifetime to ask for by this attachment, in seconds."""
    if target is RegistrationTarget.WITHDRAWN:
        return 0
    wanted = configuration.lifetime
    if target is RegistrationTarget.BRIEF:
        wanted = min(wanted, configuration.brief_lifetime)
    return candidates.bounded(attachment, wanted)


def request_actions(
    configuration: MobileNodeConfiguration,
    dialogue: RegistrationDialogue,
    candidates: CareOfCandidates,
    attachment: Attachment,
    lifetime: int,
    identification: int,
    target: RegistrationTarget,
) -> list[Action]:
    """Return the actions that send one request. Its parts count it as sent."""
    message = dialogue.request(attachment, lifetime, identification, candidates.challenge(attachment))
    detail: dict[str, JSON] = {
        "to": str(attachment.agent),
        "lifetime": lifetime,
        "care_of": str(attachment.care_of),
        "wish": target.value,
    }
    kind = "601" if configuration.on_behalf is None else "601''"
    return [
        SendRegistration(
            message,
            attachment.agent,
            link=attachment.link,
            source=_source(configuration, attachment),
            link_layer=attachment.link_layer,
        ),
        Emit("sent", kind, configuration.home_address, None, detail),
    ]


def _source(configuration: MobileNodeConfiguration, attachment: Attachment) -> Addr:
    own = configuration.on_behalf or configuration.home_address
    return attachment.care_of if attachment.colocated else own
