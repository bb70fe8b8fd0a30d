"""Locum keeps a device's place on the network while the device sleeps or is out of reach."""

__version__ = "0.1.0"
