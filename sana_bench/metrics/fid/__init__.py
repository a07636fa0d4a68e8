"""Fréchet and kernel distances between sets of images."""
