"""Starts of the processes of application proxies: by fork servers, or anew; a few at a time (A1)."""
