"""Scans with PAGEMAP_SCAN, and interprets the answer by kind of mapping."""
