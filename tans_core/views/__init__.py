"""What a scan found, for people: a page, a contact sheet, a few lines. Nothing that a task is made of depends on it."""
