"""The meta-test: the picked model against its alternatives at one budget, with a report."""
