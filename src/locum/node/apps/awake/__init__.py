"""Proxies whose device may be awake."""
