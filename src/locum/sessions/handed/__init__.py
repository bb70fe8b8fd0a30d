"""Connections that proxies opened at a stand-in and hand over to the device (A11)."""
