"""The control socket: its server, its client, and the answers to requests."""
