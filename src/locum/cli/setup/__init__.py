"""Commands that look at the host itself, with or without a running node."""
