"""Stock servers and clients of scenarios with application proxies, one file a protocol."""
