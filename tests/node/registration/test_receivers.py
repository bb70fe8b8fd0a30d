"""Which role of a host gets a message of registration or of agent discovery, for hosts with several roles."""

from itertools import combinations

import pytest

from locum.node.config.settings import ROLES
from locum.node.registration import receivers
from locum.node.registration.receivers import (
    ACKNOWLEDGMENT,
    ADVERTISEMENT,
    REGISTRATION,
    REPLY,
    REQUEST,
    REVOCATION,
    SOLICITATION,
    Place,
    Receivers,
)

PLACES = {
    "home_agent": Place(b"home", ()),
    "foreign_agent": Place(b"care", ("access0",)),
    "mnps": Place(b"mnps", ("radio0", "lan0")),
    "mobile_node": Place(b"", ("radio0",)),
    "location": Place(b"", ()),
}
HA, FA, MN, MNPS = "home_agent", "foreign_agent", "mobile_node", "mnps"
OTHER = b"else"


def host(*roles: str) -> Receivers:
    return Receivers({role: PLACES[role] for role in roles})


@pytest.mark.parametrize(
    ("roles", "kind", "destination", "receiver"),
    [
        ((HA,), REQUEST, b"home", HA),
        ((HA,), REQUEST, OTHER, HA),
        ((FA,), REQUEST, OTHER, FA),
        ((HA, FA), REQUEST, b"home", HA),
        ((HA, FA), REQUEST, OTHER, FA),
        ((MN, MNPS), REQUEST, OTHER, None),
        ((FA,), REPLY, b"care", FA),
        ((FA,), REPLY, OTHER, None),
        ((HA,), REPLY, b"home", None),
        ((MN,), REPLY, OTHER, MN),
        ((MNPS,), REPLY, OTHER, MNPS),
        ((MN, MNPS), REPLY, OTHER, MN),
        ((MN, MNPS), REPLY, b"mnps", MNPS),
        ((FA, MN), REPLY, b"care", FA),
        ((FA, MN), REPLY, OTHER, MN),
        ((FA, MNPS), REPLY, OTHER, MNPS),
        ((HA, FA), REVOCATION, b"home", HA),
        ((HA, FA), REVOCATION, b"care", FA),
        ((HA, FA), REVOCATION, OTHER, None),
        ((FA, MN, MNPS), REVOCATION, OTHER, MN),
        ((FA, MN, MNPS), REVOCATION, b"mnps", MNPS),
        ((FA, MNPS), REVOCATION, OTHER, MNPS),
        ((HA, FA), ACKNOWLEDGMENT, b"home", HA),
        ((HA, FA), ACKNOWLEDGMENT, b"care", FA),
        ((HA, FA, MN, MNPS), ACKNOWLEDGMENT, b"mnps", None),
        ((HA, FA, MN, MNPS), ACKNOWLEDGMENT, OTHER, None),
        ((HA, FA, MN, MNPS), 2, b"home", None),
        ((HA, FA, MN, MNPS), None, b"home", None),
    ],
)
def test_receiver_of_a_registration_message(
    roles: tuple[str, ...], kind: int | None, destination: bytes, receiver: str | None
) -> None:
    assert host(*roles).registration(kind, destination) == receiver


def test_the_first_row_that_fits_decides() -> None:
    """Every set of roles, kind and destination, against the rows read one by one."""
    for count in range(len(PLACES) + 1):
        for roles in combinations(PLACES, count):
            made = host(*roles)
            for kind, rows in REGISTRATION.items():
                for destination in (*(place.address for place in PLACES.values() if place.address), OTHER):
                    fitting = (
                        row.role
                        for row in rows
                        if row.role in roles
                        and (not row.own_address or PLACES[row.role].address == destination)
                    )
                    assert made.registration(kind, destination) == next(fitting, None)


def test_discovery_goes_to_a_role_on_that_link() -> None:
    made = host(FA, MN, MNPS)
    assert made.discovery(SOLICITATION, "access0") == FA
    assert made.discovery(ADVERTISEMENT, "access0") is None
    assert made.discovery(ADVERTISEMENT, "radio0") == MN
    assert made.discovery(ADVERTISEMENT, "lan0") == MNPS
    assert made.discovery(SOLICITATION, "radio0") is None
    assert made.discovery(None, "radio0") is None
    assert host(MNPS).discovery(ADVERTISEMENT, "radio0") == MNPS


def test_only_a_foreign_agent_hears_of_unreachable_home_agents() -> None:
    assert not host(HA, MN, MNPS).hears_errors
    made = host(HA, FA)
    assert made.hears_errors
    assert made.unreachable(bytes((REQUEST, 0))) == FA
    assert made.unreachable(b"") == FA  # the kernel quoted nothing of it
    assert made.unreachable(bytes((REPLY,))) is None


def test_row_with_an_unknown_role_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "UNREACHABLE", {REQUEST: ("home_agnet",)})
    with pytest.raises(ValueError, match="home_agnet"):
        Receivers({})


def test_every_role_is_among_the_fields_of_the_settings() -> None:
    assert set(ROLES) == PLACES.keys()
