"""From what a user points at (a folder, an archive, a table) to entries that may be images."""
