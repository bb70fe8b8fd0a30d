"""Codecs: bytes to frozen values and back, a value or a WireError. No I/O, no state, nothing else of locum."""
