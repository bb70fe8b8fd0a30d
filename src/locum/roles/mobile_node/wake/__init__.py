"""One wake: reclaim, fetch in rounds, return, finish (C3, A12)."""
