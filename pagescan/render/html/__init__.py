"""One page with a recording: a map of time and memory, lines, tables; no network."""
