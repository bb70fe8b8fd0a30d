"""Keeps a SIP registration alive and answers calls while their device sleeps, without input and output (A7)."""
