"""Unpacking of a file that a proxy has received (A9)."""
