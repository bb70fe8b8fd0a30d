"""`locum order`: its commands, and the files that they bring and send."""
