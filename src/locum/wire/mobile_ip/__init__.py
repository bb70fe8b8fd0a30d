"""Messages of Mobile IPv4: registration, revocation, discovery, tunnels in UDP."""
