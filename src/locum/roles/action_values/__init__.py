"""Actions, events and results of roles by subject, and the values in them."""
