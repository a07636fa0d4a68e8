"""What is asked for: suite and variant files, cells, plans and tiers."""
