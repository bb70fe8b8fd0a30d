"""Programs of scenarios that page: devices of a crowd, and packets that trigger."""
