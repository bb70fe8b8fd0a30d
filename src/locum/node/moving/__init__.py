"""What the host tells of suspends and networks, over the system bus."""
