"""The cost of Locum in figures: run as `python -m bench`. Each value has a baseline of the same run.

Not part of the installed package: it drives the real daemons and the real data plane from outside.
"""
