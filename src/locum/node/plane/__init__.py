"""Reports from the data plane: deliveries, counters and rules that ended."""
