"""The kernel side of the data plane: programs, maps, and settings of the host."""
