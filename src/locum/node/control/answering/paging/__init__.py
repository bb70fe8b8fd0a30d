"""Requests about paging: locations of devices."""
