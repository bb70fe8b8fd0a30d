"""Paging without input and output: the network paging routine (Fig. 11)."""
