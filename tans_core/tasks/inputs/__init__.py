"""Listing of a user's input (a folder, an archive, a table): entries that may be images."""
