"""WireGuard below Mobile IP: the interface, its peers, and the way to them. It must not know any role."""
