"""Filters on what the sockets of application proxies send (R20)."""
