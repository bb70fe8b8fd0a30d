"""Scenarios of application proxies."""
