"""Associations with mobile nodes whose keys follow from their AAA associations (RFC 3957)."""
