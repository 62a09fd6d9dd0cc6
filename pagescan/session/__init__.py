"""Tracking that outlives a command: its lock, its keeper, and the keeper's clients."""
