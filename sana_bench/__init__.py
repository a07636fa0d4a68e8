"""sana-bench: generate, score, profile and compare text-to-image variants in one environment."""

__version__ = "0.1.0"
