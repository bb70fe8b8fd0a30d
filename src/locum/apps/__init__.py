"""Application proxies that ship with Locum, and the program that runs one of any origin in a process of its own."""
