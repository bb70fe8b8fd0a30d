"""The configuration file, read strictly into values."""
