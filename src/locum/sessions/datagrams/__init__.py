"""UDP of unmodified programs: connected sockets of a home address, held by a stand-in while their device sleeps (A12, C2, C3).

A stand-in keeps the datagrams that arrive, within bounds of time, number and bytes, as one stream of frames; so the
messages that bring a TCP session back bring these back, too. The device turns frames into packets from the peer.
"""
