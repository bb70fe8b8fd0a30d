"""Mutants of the programs: each condition changed in turn, to see that some test notices.

`python -m tests.dataplane.mutants` tries them all and names the survivors. It is no test itself.
"""
