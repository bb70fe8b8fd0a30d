"""The edge of Mobile IPv4: messages of RFC 5944 and its extensions to neutral values and back. Nothing here decides."""
