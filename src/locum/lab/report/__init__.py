"""Checks, ladder diagrams and the report of a scenario."""
