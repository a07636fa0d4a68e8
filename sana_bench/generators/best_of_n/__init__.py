"""Inference-time scaling: the search, its tournament, its files and its judges."""
