"""Scenarios of Fig. 6: a device falls asleep and wakes up."""
