"""Scenarios of paging: packets and events that wake a sleeping device."""
