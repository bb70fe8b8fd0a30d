"""The table `[server]`; no configuration file has it yet."""
