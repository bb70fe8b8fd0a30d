"""Paging information that a device leaves: wishes to be woken, page rules (1204) and the event table (1206)."""
