"""Results of sessions and reasons, in words for users: common to wakes and abandoning."""

import errno

CLOSED = "its program closed it"
COMING = "its program does not read, and the rest is too much to go beyond its receive buffer"
GONE_THERE = "the stand-in no longer has it"
GIVEN_UP = "its peer has given it up"
SILENT = "the stand-in did not answer any more"
OPENED_MEANWHILE = "its peer opened it while the device slept"
RESTARTED = "the device restarted"
SECOND_SLEEP = "the store has another sleep of the device"

_ENDINGS = {
    errno.ECONNRESET: "the peer reset the connection",
    errno.EPIPE: "the peer reset the connection",
    errno.ETIMEDOUT: "the peer did not answer any more",
    errno.EHOSTUNREACH: "the peer could not be reached any more",
    errno.ENETUNREACH: "the peer could not be reached any more",
    errno.ECONNREFUSED: "the peer refused the connection",
}


def ended_by(error: int) -> str:
    """Reason why a connection ended at the stand-in, by its errno."""
    return (
        _ENDINGS.get(error)
        or f"the connection ended at the stand-in with {errno.errorcode.get(error, error)}"
    )
