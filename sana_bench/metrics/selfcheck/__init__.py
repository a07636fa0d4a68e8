"""Stored golden cases of every metric, run on this machine: which of its numbers can be trusted, and how far.

`recipes` draws weights and images by name, `golden` holds what the reference implementations made of them.
"""
