"""The mobile node proxy server (C2, C3, C8 to C11)."""
