"""The mobile node with its handovers (C2, C3; Fig. 6)."""
