"""Logs headers of packets that nothing at the stand-in takes, to pcapng files and to events (A2)."""
