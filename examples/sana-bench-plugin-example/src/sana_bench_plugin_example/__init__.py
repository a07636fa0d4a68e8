"""One plug-in of each kind for sana-bench."""
