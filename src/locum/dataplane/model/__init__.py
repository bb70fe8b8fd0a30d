"""The forwarding decision in Python, the same as bpf/locum.bpf.c takes."""
