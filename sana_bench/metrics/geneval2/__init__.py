"""GenEval 2: its scoring rules."""
