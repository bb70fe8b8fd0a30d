"""The row of a registration: what a restarted node needs to go on with it. Values in, values out."""

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Final

from locum.roles.action_values.addresses import JSON
from locum.roles.actions import Persist
from locum.roles.registrant.attachment import Registered, RegistrationTarget
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.dialogue import RegistrationDialogue
from locum.roles.registrant.own_parts import OwnParts

TABLE: Final = "registration"


def row_key(configuration: MobileNodeConfiguration) -> str:
    """Key of the row: the part of the configuration that no registration changes."""
    return configuration.nai or str(configuration.home_address)


def registration_row(
    configuration: MobileNodeConfiguration,
    dialogue: RegistrationDialogue,
    parts: OwnParts,
    target: RegistrationTarget,
    held: Registered | None,
) -> Persist:
    """The row of a registration that is `held`, or of none."""
    value: dict[str, JSON] = {
        **dialogue.to_row(),
        "wish": target.value,
        **parts.to_row(),
        "registered": None if held is None else held.to_row(),
    }
    if configuration.nai is not None:
        value["home_address"] = str(configuration.home_address)
    return Persist(TABLE, row_key(configuration), value)


def kept_home_address(row: Mapping[str, JSON]) -> IPv4Address:
    """The home address that was assigned; 0.0.0.0 for none."""
    return IPv4Address(str(row.get("home_address", "0.0.0.0")))


def kept_registration(row: Mapping[str, JSON], now: float) -> Registered | None:
    """The registration that still holds, if any."""
    if not isinstance(row["registered"], Mapping):
        return None
    held = Registered.from_row(row["registered"])
    return held if held.expires_at > now else None
