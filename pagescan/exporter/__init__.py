"""Serves the memory of groups of processes as metrics for Prometheus."""
