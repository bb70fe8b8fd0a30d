"""Mutants that no packet can tell from the program, each with its reason."""

EQUIVALENT: dict[str, str] = {
    "access.h spoofed: never `!(w->uses & LOCUM_SOURCES)`": "saves a look-up: no link is checked unless the flag is set",
}
"""Name of the mutant -> why nothing changes."""
