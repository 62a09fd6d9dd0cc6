"""Messages to the user, and the streams that carry them."""
