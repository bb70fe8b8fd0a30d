"""The table `[wireguard]`: its reader, and its settings as values."""
