"""A function of one's own as a metric."""
