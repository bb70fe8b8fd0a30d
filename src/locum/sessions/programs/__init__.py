"""Programs of this host: processes, freezing, and exclusions."""
