"""Forged, replayed and foreign messages, and the programs that send them."""
