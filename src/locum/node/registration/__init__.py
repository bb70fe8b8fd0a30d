"""Sockets for registration, agent discovery and keepalives, and their messages."""
