"""The roles of a node as machines without I/O: messages, results and time in, actions out."""
