"""The times of a registrant, in seconds (RFC 5944 section 3.6)."""

# Section 3.6.3: retransmit after at least one second, and double the interval up to a maximum.
RETRY_FIRST = 1.0
RETRY_MAX = 32.0
# After a refusal.
DENIED_FIRST = 2.0
# Part of the lifetime. Section 3.6.1: renew before it expires, with room for retransmissions.
RENEW_PART = 2 / 3
# After a restart the agent that was in use has to be heard again within this time.
AGENT_PATIENCE = 3.0
