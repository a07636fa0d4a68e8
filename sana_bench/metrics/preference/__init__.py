"""Scores of what people prefer: PickScore, HPS v2 and v2.1, LAION's aesthetic predictor."""
