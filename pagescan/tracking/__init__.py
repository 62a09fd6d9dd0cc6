"""Attaches, arms and looks; keeps the budget; finds this process's writes; doctor."""
