"""GenEval: detectors, colours, the decision, and the official folder layout."""
