"""The program that runs one application proxy: its confinement, its sockets, its files, and its packets to the stand-in."""
