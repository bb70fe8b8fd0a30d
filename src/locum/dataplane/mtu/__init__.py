"""MTUs of the paths of tunnels: what is believed, and packets that leave in fragments because of them."""
