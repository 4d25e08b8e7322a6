"""Prefect flows: when and where work runs. What the work is stands in `tans_core`."""
