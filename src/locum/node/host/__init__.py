"""Links, addresses and routes of the host, and its service manager."""
