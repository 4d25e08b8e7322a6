"""Reports of scans and tasks for users: a page, a contact sheet, a few lines. No task depends on them."""
