"""The process: found, opened, its mappings, and what the user selected of them."""
