"""`locum run`: single programs and the home address."""
