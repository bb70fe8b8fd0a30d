"""Checks of replies to a registrant's request (RFC 5944 section 3.6.2)."""

from random import Random

from locum.roles.mobile_ipv4.answers import received_answer
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.dialogue import RegistrationDialogue, ReplyCheck
from locum.roles.registrant.home_agent_choice import HomeAgentChoice
from locum.roles.registrant.own_keys import AgentKeys, OwnKeys
from locum.security.association import Association
from locum.wire.mobile_ip.registration import Code, RegistrationReply
from tests.roles.world import AN1, COLOCATED, HA, HOA, START

KEY = Association(300, b"k" * 16)
DIRECT = Attachment("radio0", HA, COLOCATED, colocated=True)
RELAYED = Attachment("radio0", AN1, COLOCATED, colocated=True, relayed=True)
VISITING = Attachment("radio0", AN1, AN1, colocated=False)


def unsigned_refusal(attachment: Attachment, code: int) -> ReplyCheck:
    """The check of a refusal that nobody signed, by a node that is attached like this."""
    configuration = MobileNodeConfiguration(HOA, HA, ("radio0",), KEY)
    keys, agents = OwnKeys(configuration, Random(7)), AgentKeys(configuration, {}, Random(7))
    dialogue = RegistrationDialogue(HOA, HomeAgentChoice(HA, dynamic=False), keys, agents, Random(7))
    identification = dialogue.next_identification(START)
    reply = received_answer(RegistrationReply(Code(code), 0, HOA, HA, identification))
    return dialogue.check_reply(reply, attachment, identification)


def test_unsigned_agent_refusal_needs_an_agent_on_the_path() -> None:
    for code in [code for code in Code if 64 <= code < 128]:
        assert unsigned_refusal(DIRECT, code) is ReplyCheck.NOT_AUTHENTIC
        assert unsigned_refusal(RELAYED, code) is ReplyCheck.AGENT
        assert unsigned_refusal(VISITING, code) is ReplyCheck.AGENT
