"""Downloads in place of a sleeping device: ordered ones, and its own HTTP/1.1 connections (A4)."""
