"""The location server: locations of devices, and reports to it from access nodes and devices (P6)."""
