"""The meta-test: what the picked model is worth beside the alternatives, at one budget, and the report that tells it."""
