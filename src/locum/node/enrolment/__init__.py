"""Enrolment at a server: its open invitations, and their limits."""
