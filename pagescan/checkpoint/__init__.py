"""Plans which pages an image must store, and remembers acknowledged epochs."""
