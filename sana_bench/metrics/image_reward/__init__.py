"""ImageReward: the metric, its network, and the micro tier's training and card."""
