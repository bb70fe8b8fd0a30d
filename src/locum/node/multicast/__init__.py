"""Multicast groups on access links and on the link towards the network."""
