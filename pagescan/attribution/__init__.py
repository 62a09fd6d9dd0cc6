"""Finds the code that wrote each page, and the process that paid for each copy."""
