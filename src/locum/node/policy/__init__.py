"""The RADIUS client of policy servers (RFC 2865)."""
