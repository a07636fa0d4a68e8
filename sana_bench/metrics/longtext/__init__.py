"""LongText-Bench: its scoring rule."""
