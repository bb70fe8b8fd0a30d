"""Hosts that send to this one: visitors on access links, outer sources of tunnels, and routers that report errors."""
