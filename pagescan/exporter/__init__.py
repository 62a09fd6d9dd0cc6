"""Looks at groups of processes, served as metrics for Prometheus."""
