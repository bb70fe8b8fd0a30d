"""Scenarios of stand-ins that register or share a host (Figs. 7, 8 and 10)."""
