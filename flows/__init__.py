"""Prefect flows: they schedule the work that `tans_core` does."""
