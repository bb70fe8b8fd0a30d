"""Registration by a mobile node or a stand-in (RFC 5944 section 3.6)."""
