"""Enrolment at a server: both ends of the exchange over TCP, open invitations, and their limits."""
