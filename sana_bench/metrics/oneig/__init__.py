"""OneIG-Bench: its scoring rules."""
