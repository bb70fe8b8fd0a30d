"""Captures of packets, and facts that are measured from them."""
