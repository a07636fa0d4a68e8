"""Fréchet and kernel distances between sets of images."""

__all__ = ["FEATURES", "INPUT_SIZE", "OWN"]

#: How many features Inception has, and the side of its input in pixels.
FEATURES = 2048
INPUT_SIZE = 299
#: What the protocol of a distance to one's own reference has after its name.
OWN = "+own-reference"
