"""Ways to reach a sleeping device from its access node (P11, P13): one class a kind, listed in `kinds.py`."""
