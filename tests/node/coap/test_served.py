"""The table of paths and of the roles that answer them."""

from locum.node.coap.served import SERVED
from locum.node.config.settings import ROLES


def test_every_path_has_a_role_that_answers() -> None:
    assert all(roles and set(roles) <= set(ROLES) for roles in SERVED.values())
