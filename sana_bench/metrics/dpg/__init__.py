"""DPG-Bench: the metric, its rules and grids, and the micro judge's training and card."""
