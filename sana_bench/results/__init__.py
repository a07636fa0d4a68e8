"""Stored results and the statistics computed from them."""
