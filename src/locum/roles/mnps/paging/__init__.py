"""Event tables at a stand-in: events of proxies and packets, pages, stored events, rules for the home agent (P3, P4, P15)."""
