"""Weights and data: where they are, whether they are whole, and how to get them."""
