"""Computes over rows of data that arrive while a device sleeps (A8, A10)."""
