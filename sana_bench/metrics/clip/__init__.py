"""CLIP score: the metric, its features, and the micro tier's network with its training and card."""
