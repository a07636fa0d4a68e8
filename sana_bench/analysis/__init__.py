"""What stored numbers mean: comparisons, gates, baselines, histories, reports, leaderboards and gains."""
