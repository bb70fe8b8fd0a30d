"""Live sessions in a running node: the device side and the stand-in side."""
