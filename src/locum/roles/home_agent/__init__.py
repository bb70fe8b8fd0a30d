"""The home agent (RFC 5944 section 3.8)."""
