"""Search for the sockets of a home address (sock_diag)."""
