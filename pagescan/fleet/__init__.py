"""Questions about many recordings at once, to a dataset on one of two engines."""
