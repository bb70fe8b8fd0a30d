"""Contexts of visitors, and their transfer between access nodes (C4, C5, C7)."""
