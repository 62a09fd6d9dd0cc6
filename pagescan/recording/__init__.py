"""Looks kept in a file: written while a target is tracked, read for reports."""
