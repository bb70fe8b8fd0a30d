"""What Locum costs, in figures: run as `python -m bench`. Each value stands beside a baseline of the same run.

Not part of the installed package: it drives the real daemons and the real data plane from outside.
"""
