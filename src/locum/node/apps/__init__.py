"""Application proxies at a stand-in: their kinds, their processes, and the sessions that they attend (A1)."""
