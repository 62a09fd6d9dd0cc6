"""One file per command: parses its words, calls the library, renders the result."""
