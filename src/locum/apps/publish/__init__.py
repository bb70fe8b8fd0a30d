"""Serves the content that a device has uploaded, by HTTP/1.1 from the device's own address (A5)."""
