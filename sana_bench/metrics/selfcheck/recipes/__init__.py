"""Weights, words and images of the golden cases, in NumPy alone: the references' environments read them too."""
