"""Pages of a home agent's devices: their causes, places and outcomes (P1, P4)."""
