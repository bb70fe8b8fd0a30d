"""Stock servers and clients, and programs that a lab runs in its nodes."""
