"""Suspends and networks of the host, as the system bus tells of them."""
