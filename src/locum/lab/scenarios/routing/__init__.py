"""Scenarios of registration, movement, filters and profiles."""
