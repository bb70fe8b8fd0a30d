"""Keeps captured connections alive while their device sleeps: one file for each protocol, and the proxy (A3)."""
