"""Plans which pages an image must store, and remembers what it was told."""
