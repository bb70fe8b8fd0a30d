"""Packets and profiles of devices that are paged here, before they register (1210, P8, P10)."""
