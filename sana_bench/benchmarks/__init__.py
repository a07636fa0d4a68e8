"""Prompt sets, with the metrics that judge their images."""
