"""Enrolment of a device at its server: the code that a person types, and the messages on TCP port 51820."""
