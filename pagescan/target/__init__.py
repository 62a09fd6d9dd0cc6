"""A process: finds and opens it, reads its mappings, and selects ranges of them."""
