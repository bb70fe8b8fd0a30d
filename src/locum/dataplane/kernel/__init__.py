"""The kernel side of the data plane: programs, maps and what they need of the host."""
