"""Who wrote each page, and who paid for a copy: names, samples, the join."""
