"""New connections to ports of a sleeping device."""
