"""Says hello in a table."""
