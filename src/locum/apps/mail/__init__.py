"""Watches a mailbox while its device sleeps: IMAP without input and output, filters, and the proxy (A6)."""
