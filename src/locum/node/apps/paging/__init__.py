"""Work for event tables: packets as events, and texts through the sessions of proxies."""
