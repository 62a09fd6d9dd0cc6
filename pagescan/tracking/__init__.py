"""Attaches, arms and looks; the budget; this process's own writes; doctor."""
