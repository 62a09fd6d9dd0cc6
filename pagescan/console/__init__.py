"""What a command tells its user, and the streams on which it does."""
