"""Stock RADIUS programs: a policy server, and a client that pushes changes."""
