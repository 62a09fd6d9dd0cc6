"""Records, errors, units, and operations on lists of regions; no I/O."""
