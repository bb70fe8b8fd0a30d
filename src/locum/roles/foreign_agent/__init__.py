"""The foreign agent of an access node (RFC 5944 section 3.7)."""
