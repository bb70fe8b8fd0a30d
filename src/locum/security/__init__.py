"""Associations and checks on bytes: authenticators and replay protection. No message, no I/O, no clock, no state kept."""
