"""Faults of long runs, injected into the real tools on small runs of the three tasks."""
